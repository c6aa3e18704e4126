"""Write ICC color profiles of RGB color spaces, such as those of cameras and phones, without a profile file."""

import struct

import numpy as np
import numpy.typing as npt

# Chromaticities (x, y) of red, green and blue, and gamma.
Space = tuple[tuple[float, float], tuple[float, float], tuple[float, float], float]
# Source: Adobe RGB (1998) 4.3; SMPTE EG 432-1 (Display P3).
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), 563 / 256)
DISPLAY_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), 563 / 256)
D65, D50 = np.array([0.95047, 1, 1.08883]), np.array([0.9642, 1, 0.8249])
# Source: Bradford chromatic adaptation, ICC.1:2022, annex E.
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def icc_profile(space: Space) -> bytes:
    """Return the ICC profile (version 2, matrix and gamma) of a color space with white point D65.

    Source: ICC.1:2001-04.
    """
    primaries = np.array([[x / y, 1, (1 - x - y) / y] for x, y in space[:3]]).T
    to_d65 = primaries * np.linalg.solve(primaries, D65)
    adapt = np.linalg.solve(BRADFORD, ((BRADFORD @ D50) / (BRADFORD @ D65))[:, None] * BRADFORD)
    columns = (adapt @ to_d65).T
    curve = b"curv" + struct.pack(">4xIH2x", 1, round(space[3] * 256))
    tags = {b"wtpt": _xyz(D50), b"rXYZ": _xyz(columns[0]), b"gXYZ": _xyz(columns[1]), b"bXYZ": _xyz(columns[2])}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    tags[b"desc"] = b"desc" + struct.pack(">4xI", 4) + b"RGB\0" + bytes(80)
    start, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", start + len(data), len(tag))
        data += tag
    size = start + len(data)
    header = struct.pack(">I4xI", size, 0x02400000) + b"mntrRGB XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += np.round(D50 * 65536).astype(">i4").tobytes()
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + np.round(values * 65536).astype(">i4").tobytes()

"""Any image file becomes one form, or says why it cannot."""

import io
import struct
import zlib

import imagehash
import numpy as np
import pytest
from PIL import Image

from deeprank.data.images import JPEG_QUALITY, MAX_PIXELS, SHORT_SIDE, canonical, sha256, stored_jpeg
from deeprank.errors import DataError
from tests.drawing import decoded, encoded, pattern

QUADRANTS = np.zeros((64, 96, 3), dtype=np.uint8)
QUADRANTS[:32, :48], QUADRANTS[:32, 48:], QUADRANTS[32:, :48] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
# What undoes each EXIF orientation: the camera stores the picture so, and says so.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _png(width: int, height: int, depth: int, pixels: bytes) -> bytes:
    """Return a color PNG, which Pillow cannot write with 16 bits or with other pixels than it says."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("size", "stored"),
    [((1024, 512), (512, 256)), ((512, 1024), (256, 512)), ((3000, 2000), (384, 256)), ((256, 256), (256, 256)), ((40, 90), (40, 90))],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_short_side_becomes_256_at_most_and_the_shape_stays(size: tuple[int, int], stored: tuple[int, int], kind: str) -> None:
    found = canonical(encoded(pattern(1, size), kind))
    assert (found.width, found.height) == stored
    with Image.open(io.BytesIO(found.jpeg)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", stored)
    assert min(stored) <= SHORT_SIDE


def test_the_stored_form_looks_like_the_original() -> None:
    original = pattern(2, (200, 120))
    assert JPEG_QUALITY >= 92
    assert np.abs(decoded(canonical(encoded(original)).jpeg) - np.asarray(original, np.float32)).mean() < 2


def test_the_same_bytes_give_the_same_image() -> None:
    data = encoded(pattern(3, (400, 300)), "JPEG")
    assert canonical(data) == canonical(data)


def test_the_identity_is_the_sha_256_of_the_bytes() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_hash_is_the_64_bit_perceptual_hash_and_barely_changes_with_size_and_format() -> None:
    original = pattern(4, (320, 320))
    found = canonical(encoded(original))
    assert found.phash == int(str(imagehash.phash(original.resize((256, 256), Image.Resampling.BICUBIC))), 16)
    again = canonical(encoded(original.resize((200, 200)), "JPEG", quality=60))
    other = canonical(encoded(pattern(5, (320, 320))))
    assert (found.phash ^ again.phash).bit_count() <= 4
    assert (found.phash ^ other.phash).bit_count() > 10


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (b"\xff\xd8\xff\xe0 only looks like a JPEG", "not an image|damaged"),
        (encoded(pattern(1, (200, 200)), "JPEG")[:2000], "damaged or truncated"),
        (encoded(pattern(1, (200, 200)), "PNG")[:2000], "damaged or truncated"),
        (encoded(pattern(1, (200, 200)), "GIF")[:2000], "damaged or truncated"),
        (encoded(pattern(1, (200, 15))), "200 x 15 pixels are too few: the short side needs 16"),
    ],
    ids=["zero bytes", "text", "JPEG magic only", "truncated JPEG", "truncated PNG", "truncated GIF", "too small"],
)
def test_what_is_no_image_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        canonical(data)


def test_an_image_too_large_for_memory_is_refused_before_it_is_decoded() -> None:
    width, height = 20_000, 20_000
    assert width * height > MAX_PIXELS
    with pytest.raises(DataError, match="pixels"):
        canonical(_png(width, height, 8, b"no pixels"))


def test_of_an_animation_the_first_frame_is_used() -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "lime", "blue")]
    found = canonical(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.remark == "animated: first frame used"
    assert np.allclose(decoded(found.jpeg).mean((0, 1)), (255, 0, 0), atol=4)


def test_cmyk_becomes_the_same_colors_in_rgb() -> None:
    found = canonical(encoded(Image.new("RGB", (64, 64), (200, 60, 120)).convert("CMYK"), "JPEG", quality=95))
    assert "CMYK" in found.remark
    assert np.allclose(decoded(found.jpeg).mean((0, 1)), (200, 60, 120), atol=6)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    deep = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    found = canonical(encoded(Image.fromarray(deep)))
    assert "16-bit" in found.remark
    assert np.allclose(decoded(found.jpeg)[..., 0], deep / 257, atol=5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(value: float) -> None:
    deep = np.full((32, 32), 0.5, dtype=np.float32)
    deep[3, 3] = value
    with pytest.raises(DataError, match="pixels that are no numbers"):
        canonical(encoded(Image.fromarray(deep), "TIFF"))


def test_a_16_bit_color_png_is_scaled_too() -> None:
    rows = np.full((32, 32, 3), (65535, 32896, 0), dtype=">u2")
    data = _png(32, 32, 16, b"".join(b"\0" + row.tobytes() for row in rows))
    assert np.allclose(decoded(canonical(data).jpeg).mean((0, 1)), (255, 128, 0), atol=4)


def test_a_palette_with_transparency_is_laid_on_white() -> None:
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (32, 0, 64, 64))
    found = canonical(encoded(palette, transparency=0))
    pixels = decoded(found.jpeg)
    assert found.remark == "transparent: laid on white"
    assert np.allclose(pixels[:, :28].mean((0, 1)), 255, atol=4)
    assert np.allclose(pixels[:, 36:].mean((0, 1)), (0, 0, 255), atol=6)


@pytest.mark.parametrize(("mode", "color", "seen"), [("RGBA", (200, 0, 0, 128), (227, 127, 127)), ("LA", (0, 128), (127, 127, 127))])
def test_half_transparent_pixels_mix_with_white(mode: str, color: tuple[int, ...], seen: tuple[int, ...]) -> None:
    found = canonical(encoded(Image.new(mode, (64, 64), color)))
    assert np.allclose(decoded(found.jpeg).mean((0, 1)), seen, atol=4)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_other_color_modes_become_rgb_without_a_remark(mode: str) -> None:
    found = canonical(encoded(pattern(6).convert(mode)))
    assert (found.remark, decoded(found.jpeg).shape) == ("", (64, 64, 3))


@pytest.mark.parametrize("orientation", STORED_AS)
def test_a_image_is_turned_as_its_exif_says(orientation: int) -> None:
    upright = Image.fromarray(QUADRANTS)
    turn = STORED_AS[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    stored = upright if turn is None else upright.transpose(turn)
    found = canonical(encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif))
    assert (found.width, found.height) == upright.size
    assert np.abs(decoded(found.jpeg) - QUADRANTS).mean() < 4
    with Image.open(io.BytesIO(found.jpeg)) as image:
        assert 274 not in image.getexif()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0XX*\0\x08\0\0\0\0\0"])
def test_damaged_exif_does_not_cost_the_image(kind: str, exif: bytes) -> None:
    found = canonical(encoded(pattern(7), kind, exif=exif))
    assert (found.width, found.height) == (64, 64)
    assert stored_jpeg(encoded(pattern(7), kind, exif=exif))


def test_a_image_is_turned_though_another_field_of_its_exif_is_damaged() -> None:
    # Orientation 6, then ResolutionUnit, a number, as two letters.
    fields = struct.pack("<HHHIHxxHHI4s", 2, 274, 3, 1, 6, 296, 2, 2, b"x\0\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + fields + bytes(4)
    found = canonical(encoded(pattern(7).resize((96, 64)), "JPEG", exif=exif))
    assert (found.width, found.height) == (64, 96)

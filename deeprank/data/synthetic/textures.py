"""Draw noise and the textures of walls and grounds."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeprank.data.synthetic.products import mix_colors
from deeprank.data.synthetic.types import FloatArray

TEXTURE_SIZE = 2.2  # side of a texture, as a multiple of the image's shorter side
# Indices into `surface_textures`.
GROUNDS = (0, 1, 2, 3, 5, 6)
WALLS = (2, 4, 6, 7, 8)


def smooth_noise(seed: int, height: int, width: int, cells: tuple[int, ...], aspect: int = 1) -> FloatArray:
    """Return smooth noise (height, width) of about -1 to 1, a sum of interpolated random grids.

    Args:
        seed: random seed.
        height: of the result.
        width: of the result.
        cells: cells of each grid in x; each grid is weaker than the one before it by 1.6.
        aspect: cells in y per cell in x.

    """
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for k, n in enumerate(cells):
        grid = Image.fromarray(rng.uniform(-1, 1, (n * aspect, n)).astype(np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 1.6**k
    return total


@lru_cache(maxsize=2)
def surface_textures(size: int) -> tuple[Image.Image, ...]:
    """Return nine RGB squares: wood, planks, linen, marble, tiles, check, concrete, plaster, brick.

    Args:
        size: the image's shorter side in pixels; a square's side is TEXTURE_SIZE times that.

    """

    def is_joint(v: FloatArray, half_period: float) -> NDArray[np.bool_]:
        return np.abs(v % 1 - 0.5) > half_period

    n = round(TEXTURE_SIZE * size)
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / size
    fine = smooth_noise(1, n, n, (40, 90, 200))
    clouds = smooth_noise(2, n, n, (4, 8, 16, 40))
    streaks = smooth_noise(4, n, n, (3, 7), 30)
    weave = np.sin(x * 260) * np.sin(y * 260)
    column, plank, tile, brick = map(np.floor, (x * 3, y * 4, y * 3, y * 7))
    tile_joint = is_joint(x * 3, 0.48) | is_joint(y * 3, 0.48)
    mortar = is_joint(y * 7, 0.44) | is_joint(x * 3 + 0.5 * (brick % 2), 0.475)
    checks = ((x * 6) % 1 > 0.5).astype(np.float32) + ((y * 6) % 1 > 0.5)
    patterns = (
        ("#b98a58", 1 + 0.16 * streaks + 0.03 * fine),
        ("#8b6a4a", np.where(is_joint(y * 4, 0.485), 0.45, 1 + 0.14 * streaks + 0.12 * np.sin(plank * 12.9) + 0.03 * fine)),
        ("#cfc3ae", 1 + 0.05 * weave + 0.06 * fine + 0.03 * clouds),
        ("#dcdad6", 1 + 0.05 * clouds - 0.22 * np.exp(-((clouds * 6) ** 2)) + 0.02 * fine),
        ("#c9d6d6", np.where(tile_joint, 0.78, 1 + 0.03 * np.sin(column * 7 + tile * 5)) + 0.02 * fine),
        ("#e8e4dc", 1 - 0.16 * checks + 0.03 * weave),
        ("#9d9c98", 1 + 0.1 * clouds + 0.07 * fine),
        ("#d8d4cc", 1 + 0.02 * clouds),
        ("#b0785c", np.where(mortar, 1.25, 1 + 0.1 * fine + 0.1 * np.sin(column * 9 + brick * 4))),
    )
    return tuple(Image.fromarray(np.clip(mix_colors(color) * pattern[..., None], 0, 255).astype(np.uint8)) for color, pattern in patterns)


@lru_cache(maxsize=2)
def sensor_noise(size: int) -> tuple[Image.Image, ...]:
    """Return camera noise around 128 in four strengths, as RGB squares.

    Args:
        size: the image's shorter side in pixels; a square's side is twice that.

    """
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 1, (2 * size, 2 * size, 1)) + 0.5 * rng.normal(0, 1, (2 * size, 2 * size, 3))
    return tuple(Image.fromarray(np.clip(128 + noise * strength, 0, 255).astype(np.uint8)) for strength in (1.5, 2.5, 4, 6))

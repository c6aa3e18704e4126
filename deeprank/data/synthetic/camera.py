"""Apply the effects of a camera to a drawn scene: uneven light, glare, color, exposure, blur and noise."""

import math
import random

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from deeprank.data.synthetic.textures import sensor_noise


def apply_camera_effects(image: Image.Image, rng: random.Random, size: int) -> Image.Image:
    """Return an RGB image with random camera effects.

    Args:
        image: the drawn scene.
        rng: source of the random numbers.
        size: shorter side of the image, in pixels.

    """
    image = ImageChops.multiply(image, _uneven_light(rng, image.width, image.height))
    if rng.random() < 0.12:
        _paste_glare(image, rng, size)
    image = image.point(_color_curves(rng))
    defocus, motion = rng.choice((0, 0, 0.3, 0.5, 0.8)), rng.choice((0, 0, 0, 1)) * rng.uniform(0.4, 1.6)
    if defocus + motion > 0:
        is_horizontal = rng.random() < 0.6
        radius = (defocus + motion * is_horizontal) * size / 256, (defocus + motion * (not is_horizontal)) * size / 256
        image = image.filter(ImageFilter.BoxBlur(radius))
    noise = rng.choice(sensor_noise(size))
    left, top = rng.randrange(noise.width - image.width + 1), rng.randrange(noise.height - image.height + 1)
    return ImageChops.add(image, noise.crop((left, top, left + image.width, top + image.height)), 1, -128)


def _uneven_light(rng: random.Random, width: int, height: int) -> Image.Image:
    """Return a smooth gray gradient in a random direction, as RGB."""
    angle, depth = rng.random() * 6.28, rng.uniform(0, 0.2)
    slopes = [math.cos(angle) * (k % 4 / 1.5 - 1) + math.sin(angle) * (k // 4 / 1.5 - 1) for k in range(16)]
    grid = Image.new("L", (4, 4))
    grid.putdata([max(0, int(255 * (1 - depth * (1.4 + slope) - 0.14 * rng.random()))) for slope in slopes])
    light = grid.resize((width, height), Image.Resampling.BICUBIC)
    return Image.merge("RGB", (light, light, light))


def _paste_glare(image: Image.Image, rng: random.Random, size: int) -> None:
    """Paste a bright round spot at a random position."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1) * 2 - 1
    spot = Image.fromarray((140 * np.clip(1 - (x * x + y * y), 0, 1) ** 1.5).astype(np.uint8))
    image.paste((255, 252, 240), (int(rng.uniform(-0.4, 0.8) * image.width), int(rng.uniform(-0.5, 0.6) * image.height)), spot)


def _color_curves(rng: random.Random) -> list[int]:
    """Return a lookup table for Image.point with random color temperature, exposure, gamma and contrast."""
    temperature, green_shift, contrast = rng.gauss(0, 0.08), rng.gauss(0, 0.025), rng.uniform(0.8, 1.25)
    gains = np.array([[1 + temperature], [1 + green_shift], [1 - temperature]]) * rng.uniform(0.95, 1.4) / 255
    curves = ((np.arange(256) * gains) ** rng.uniform(0.8, 1.15) - 0.45) * contrast + 0.45
    return np.clip(curves * 255, 0, 255).astype(int).ravel().tolist()

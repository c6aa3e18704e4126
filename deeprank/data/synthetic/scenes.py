"""The image: a place with other products about, the product and its copies, shadows, light, blur and noise."""

import math
import random
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from deeprank.data.synthetic.bodies import SMOOTH, Pose, Product, Solid, product, put, ramp, upright
from deeprank.data.synthetic.drawing import Floats, Place, grid, write
from deeprank.data.synthetic.products import KINDS, VARIANTS, mix

OTHERS = 10_008  # class index of the first product used as clutter: a first variant, far beyond the labelled ones
# Colors that tint walls and grounds: neutral, cream, sage, sky, clay, slate, sand, rose, mint.
TINTS = ["#fafafa", "#fffae6", "#dff7da", "#d8f2ff", "#ffdbc2", "#b8c7db", "#ffedc7", "#ffe6e6", "#d1faf0"]


@dataclass(frozen=True, slots=True)
class Shot:
    """What is decided first about an image: its random numbers, scene, pixels and the height where things stand."""

    rng: random.Random
    scene: str  # table, shelf, flat or studio
    size: int
    w: int
    h: int
    foot: float


@lru_cache(maxsize=2)
def _textures(size: int) -> tuple[Image.Image, ...]:
    """Return walls and grounds, RGB squares of 2.2 x size: wood, planks, linen, marble, tiles, check, concrete, plaster, brick."""

    def joint(v: Floats, reach: float) -> NDArray[np.bool_]:
        return np.abs(v % 1 - 0.5) > reach

    n = round(2.2 * size)
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / size
    fine, cloud, streak = grid(1, n, n, (40, 90, 200)), grid(2, n, n, (4, 8, 16, 40)), grid(4, n, n, (3, 7), 30)
    weave, column, plank, tile, brick = np.sin(x * 260) * np.sin(y * 260), *map(np.floor, (x * 3, y * 4, y * 3, y * 7))
    gap = joint(x * 3, 0.48) | joint(y * 3, 0.48)
    mortar = joint(y * 7, 0.44) | joint(x * 3 + 0.5 * (brick % 2), 0.475)
    patterns = (
        ("#b98a58", 1 + 0.16 * streak + 0.03 * fine),
        ("#8b6a4a", np.where(joint(y * 4, 0.485), 0.45, 1 + 0.14 * streak + 0.12 * np.sin(plank * 12.9) + 0.03 * fine)),
        ("#cfc3ae", 1 + 0.05 * weave + 0.06 * fine + 0.03 * cloud),
        ("#dcdad6", 1 + 0.05 * cloud - 0.22 * np.exp(-((cloud * 6) ** 2)) + 0.02 * fine),
        ("#c9d6d6", np.where(gap, 0.78, 1 + 0.03 * np.sin(column * 7 + tile * 5)) + 0.02 * fine),
        ("#e8e4dc", 1 - 0.16 * (((x * 6) % 1 > 0.5).astype(np.float32) + ((y * 6) % 1 > 0.5)) + 0.03 * weave),
        ("#9d9c98", 1 + 0.1 * cloud + 0.07 * fine),
        ("#d8d4cc", 1 + 0.02 * cloud),
        ("#b0785c", np.where(mortar, 1.25, 1 + 0.1 * fine + 0.1 * np.sin(column * 9 + brick * 4))),
    )
    return tuple(Image.fromarray(np.clip(mix(tone) * pattern[..., None], 0, 255).astype(np.uint8)) for tone, pattern in patterns)


@lru_cache(maxsize=256)
def _other(place: int, height: int, size: int) -> Image.Image:
    """Return a product used as clutter, RGBA of about `height` pixels (less if it is wide)."""
    other, clear = product(OTHERS + place * VARIANTS, size), (128, 128, 128, 0)
    scale = height / max(other.height, 0.8 * other.width)
    middle, bottom = math.ceil(other.width * scale), math.ceil(height * 1.4)
    canvas = Image.new("RGBA", (2 * middle, bottom + height), clear)
    for face in other.faces(Pose((place % 5 - 2) * 0.2, 0.12, 0, scale, middle, bottom, (-0.4, -0.5, 0.75))):
        layer = Image.new("RGBA", canvas.size, clear)
        put(layer, face)
        canvas.alpha_composite(layer)
    return canvas.crop(canvas.getbbox()).filter(ImageFilter.BoxBlur(size / 300))


def _tint(rng: random.Random, light: float) -> list[float]:
    """Return gains of red, green and blue: a random tint, `light` bright."""
    return [light * level / 250 for level in mix(rng.choice(TINTS))]


def _cut(shot: Shot, texture: int, w: int, h: int, squeeze: float = 1) -> Image.Image:
    """Return a random piece of a texture, w x h pixels, tinted; squeeze > 1 shows more of its height (a ground seen flat)."""
    source, rng = _textures(shot.size)[texture], shot.rng
    zoom = rng.uniform(0.7, 1.15)
    across, down = min(source.width, w * zoom), min(source.height, h * zoom * squeeze)
    left, top = rng.uniform(0, source.width - across), rng.uniform(0, source.height - down)
    piece = source.resize((w, h), SMOOTH, (left, top, left + across, top + down))
    return piece.point(ramp(*_tint(rng, rng.uniform(0.65, 1.1))))


def _stand(canvas: Image.Image, shot: Shot, place: Place, height: float, turn: bool = False) -> None:
    """Set some other product, about `height` pixels high, with the middle of its foot at a place, perhaps lying on a side."""
    step = max(4, shot.size // 16)  # few heights, so that the pictures can be kept
    other = _other(shot.rng.randrange(len(KINDS)), max(1, round(height / step)) * step, shot.size)
    if turn:
        other = other.rotate(shot.rng.choice((90, 180, 270)), expand=True)
    canvas.paste(other, (round(place[0] - other.width / 2), round(place[1] - other.height)), other)


def _backdrop(shot: Shot) -> Image.Image:
    """Return an empty place with other products about."""
    rng, w, h, foot, size = shot.rng, shot.w, shot.h, shot.foot, shot.size
    if shot.scene == "studio":
        tint, wall = _tint(rng, rng.uniform(120, 235)), Image.new("RGB", (2, 4))
        wall.putdata([tuple(min(255, int(gain * t)) for t in tint) for gain in (0.8, 0.75, 0.95, 0.9, 1, 1, 0.85, 0.8)])
        return wall.resize((w, h), Image.Resampling.BICUBIC)
    ground = rng.choice((0, 1, 2, 3, 5, 6))
    if shot.scene == "flat":
        canvas = _cut(shot, ground, w, h)
        for _ in range(rng.choice((0, 1, 2, 2, 3))):
            _stand(canvas, shot, (rng.choice((-0.08, 0, 1, 1.08)) * w, rng.uniform(0.3, 1.3) * h), rng.uniform(0.5, 0.9) * size, True)
        return canvas
    # What is far away is drawn at half the size: it comes out of focus and costs little.
    canvas = _cut(shot, rng.choice((2, 4, 6, 7, 8)), w // 2, h // 2)
    if shot.scene == "shelf":
        canvas, tall = canvas.point(ramp(0.65, 0.65, 0.65)), rng.uniform(0.2, 0.34) * h
        for k in range(5):
            _stand(canvas, shot, (w * (k + rng.uniform(0.2, 0.8)) / 10, (foot - 0.04 * h) / 2), tall)
        canvas = canvas.resize((w, h), SMOOTH)
        _board(canvas, shot)
        return canvas
    horizon = int(foot - rng.uniform(0.12, 0.4) * h)
    canvas = canvas.filter(ImageFilter.BoxBlur(size / 180))
    for _ in range(rng.choice((0, 1, 2, 3, 4))):
        _stand(canvas, shot, (rng.random() * w / 2, (horizon + 0.05 * h) / 2), rng.uniform(0.15, 0.3) * h)
    canvas = canvas.filter(ImageFilter.BoxBlur(size / 320)).resize((w, h), SMOOTH)
    canvas.paste(_cut(shot, ground, w, h - horizon, 2), (0, horizon))
    for _ in range(rng.choice((0, 0, 1, 2))):
        _stand(canvas, shot, (rng.choice((-0.02, 0.05, 0.95, 1.02)) * w, foot - rng.uniform(0, 0.1) * h), rng.uniform(0.4, 0.7) * h)
    return canvas


def _board(canvas: Image.Image, shot: Shot) -> None:
    """Draw a shelf's board with price tags below the foot."""
    rng, size, grey, lip = shot.rng, shot.size, shot.rng.randint(120, 240), int(shot.foot + 0.03 * shot.h)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, int(shot.foot - 0.05 * shot.h), shot.w, lip), fill=mix((grey, grey, grey), "#000", 0.25))
    draw.rectangle((0, lip, shot.w, shot.h), fill=(grey, grey, grey))
    for k in range(rng.randint(1, 3)):
        x, price = shot.w * (rng.random() + k) / 3, f"{rng.randint(0, 9)}.{rng.randint(10, 99)}"
        draw.rectangle((x, lip + 2, x + 0.16 * size, lip + 0.09 * size), fill="#fff8d8")
        write(draw, price, (x + 0.08 * size, lip + 0.05 * size), (0.12 * size, 0.07 * size), "#222")


def _occlude(canvas: Image.Image, shot: Shot) -> None:
    """Put something in front: another product at the edge, or a price sticker."""
    rng, size, w, h = shot.rng, shot.size, shot.w, shot.h
    if rng.random() < 0.6:
        _stand(canvas, shot, (rng.choice((-0.02, 0.06, 0.94, 1.02)) * w, h * rng.uniform(1.05, 1.3)), h * rng.uniform(0.55, 0.8))
        return
    across, down = size // 5, size // 9
    tag = Image.new("RGBA", (across, down), rng.choice(("#ffe13c", "#fafaf5", "#e63c32")))
    write(ImageDraw.Draw(tag), f"-{rng.randint(1, 9)}0%", (across / 2, down / 2), (across * 0.8, down * 0.8), "#222")
    tag = tag.rotate(rng.uniform(-20, 20), SMOOTH, expand=True)
    canvas.paste(tag, (int(rng.uniform(0.3, 0.6) * w), int(rng.uniform(0.35, 0.75) * h)), tag)


@lru_cache(maxsize=2)
def _grains(size: int) -> tuple[Image.Image, ...]:
    """Return sensor noise round 128, weak to strong, RGB squares of 2 x size."""
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 1, (2 * size, 2 * size, 1)) + 0.5 * rng.normal(0, 1, (2 * size, 2 * size, 3))
    return tuple(Image.fromarray(np.clip(128 + noise * s, 0, 255).astype(np.uint8)) for s in (1.5, 2.5, 4, 6))


def _poses(shot: Shot, subject: Product) -> list[Pose]:
    """Return where the product stands or lies, and its copies; the main one comes last."""
    rng, w, h, flat = shot.rng, shot.w, shot.h, shot.scene == "flat"
    yaw = rng.uniform(-0.3, 0.3) if flat else rng.choice((-1, 1)) * rng.uniform(0.05, 0.75)
    pitch = rng.uniform(-0.08, 0.08) if flat else rng.uniform(-0.02, 0.36)
    roll = rng.uniform(-0.7, 0.7) if flat else rng.gauss(0, 0.05)
    wide = subject.width if isinstance(subject, Solid) else subject.width * math.cos(yaw) + subject.depth * abs(math.sin(yaw))
    scale = min(rng.uniform(0.6, 0.98) * shot.foot / subject.height, rng.uniform(0.55, 0.9) * w / wide)
    light = (rng.uniform(-0.8, 0.8), rng.uniform(-0.65, -0.1), 0.75)
    x, y = w * rng.uniform(0.36, 0.64), shot.foot
    if flat:
        middle, reach = h * rng.uniform(0.4, 0.6), subject.height * scale / 2
        x, y = x - math.sin(roll) * reach, middle + math.cos(roll) * reach
    main = Pose(yaw, pitch, roll, scale, x, y, light)
    side, copies = rng.choice((-1, 1)), rng.choices((0, 1, 2), {"shelf": (2, 3, 5), "studio": (1, 0, 0)}.get(shot.scene, (7, 2, 1)))[0]
    poses = []
    for k in range(copies):
        step = side * (1 - 2 * k) * wide * scale * rng.uniform(1.02, 1.2)
        beside, below = x + step * math.cos(roll), y + step * math.sin(roll) + rng.uniform(-0.02, 0.01) * h
        poses.append(replace(main, x=beside, y=below, yaw=yaw + rng.gauss(0, 0.15), roll=roll + rng.gauss(0, 0.02)))
    return [*poses, main]


def _shadow(canvas: Image.Image, subject: Product, poses: list[Pose], flat: bool) -> None:
    """Darken the ground beside and under a product and its copies."""
    cell = max(2, min(canvas.size) // 42)
    mask = Image.new("L", (canvas.width // cell + 1, canvas.height // cell + 1))
    draw = ImageDraw.Draw(mask)
    for pose in poses:
        points = subject.project((*upright(subject.width / 2, -subject.height), (0, 0, -subject.depth / 2)), pose) / cell
        (x3, y3), (x2, y2), (x1, y1), (x0, y0), (_, front) = points.tolist()
        tall, wide = y0 - y3, abs(x1 - x0)
        if flat:
            dx, dy = -pose.light[0] * 0.12 * wide, 0.06 * wide
            draw.polygon([(x + dx, y + dy) for x, y in ((x3, y3), (x2, y2), (x1, y1), (x0, y0))], fill=120)
            continue
        dx, dy = -pose.light[0] * 0.7 * tall, -0.14 * tall
        draw.polygon([(x0, y0), (x1, y1), (x1 + dx, y1 + dy), (x0 + dx, y0 + dy)], fill=80)
        x, y, deep = (x0 + x1) / 2, (y0 + y1) / 2, max(1.0, front - (y0 + y1) / 2)
        draw.ellipse((x - wide * 0.58, y - deep, x + wide * 0.58, y + deep * 1.15 + 0.5), fill=190)
    soft = mask.filter(ImageFilter.BoxBlur(1)).resize((mask.width * cell, mask.height * cell), SMOOTH)
    canvas.paste((12, 10, 14), (0, 0), soft.crop((0, 0, *canvas.size)))


def _develop(canvas: Image.Image, shot: Shot) -> Image.Image:
    """Return the image under uneven light: with glare, color temperature, exposure, blur and sensor noise."""
    rng, w, h = shot.rng, shot.w, shot.h
    turn, depth = rng.random() * 6.28, rng.uniform(0, 0.2)
    slopes = [math.cos(turn) * (k % 4 / 1.5 - 1) + math.sin(turn) * (k // 4 / 1.5 - 1) for k in range(16)]
    shade = Image.new("L", (4, 4))
    shade.putdata([max(0, int(255 * (1 - depth * (1.4 + slope) - 0.14 * rng.random()))) for slope in slopes])
    light = shade.resize((w, h), Image.Resampling.BICUBIC)
    canvas = ImageChops.multiply(canvas, Image.merge("RGB", (light, light, light)))
    if rng.random() < 0.12:
        y, x = np.mgrid[0 : shot.size, 0 : shot.size].astype(np.float32) / (shot.size - 1) * 2 - 1
        spot = Image.fromarray((140 * np.clip(1 - (x * x + y * y), 0, 1) ** 1.5).astype(np.uint8))
        canvas.paste((255, 252, 240), (int(rng.uniform(-0.4, 0.8) * w), int(rng.uniform(-0.5, 0.6) * h)), spot)
    warm, tint, contrast = rng.gauss(0, 0.08), rng.gauss(0, 0.025), rng.uniform(0.8, 1.25)
    gains = np.array([[1 + warm], [1 + tint], [1 - warm]]) * rng.uniform(0.95, 1.4) / 255
    encode_hierarchy = ((np.arange(256) * gains) ** rng.uniform(0.8, 1.15) - 0.45) * contrast + 0.45
    canvas = canvas.point(np.clip(encode_hierarchy * 255, 0, 255).astype(int).ravel().tolist())
    blur, shake = rng.choice((0, 0, 0.3, 0.5, 0.8)), rng.choice((0, 0, 0, 1)) * rng.uniform(0.4, 1.6)
    if blur + shake > 0:
        across = rng.random() < 0.6
        radius = (blur + shake * across) * shot.size / 256, (blur + shake * (not across)) * shot.size / 256
        canvas = canvas.filter(ImageFilter.BoxBlur(radius))
    grain = rng.choice(_grains(shot.size))
    left, top = rng.randrange(grain.width - w + 1), rng.randrange(grain.height - h + 1)
    return ImageChops.add(canvas, grain.crop((left, top, left + w, top + h)), 1, -128)


def render(class_index: int, image_index: int, seed: int = 0, size: int = 256) -> Image.Image:
    """Return an image of a class's product: RGB, shorter side `size` pixels (32 or more), the same for the same arguments."""
    subject = product(class_index, size)
    rng = random.Random(f"{seed}/{class_index}/{image_index}")
    longer = round(size * rng.choice((1, 1.25, 4 / 3, 4 / 3, 1.5)))
    w, h = (size, longer) if rng.random() < (0.7 if subject.height > subject.width else 0.4) else (longer, size)
    scene = rng.choices(("table", "shelf", "flat", "studio"), (5, 3, 2, 2))[0]
    shot = Shot(rng, scene, size, w, h, h * rng.uniform(0.78, 0.95))
    canvas, poses = _backdrop(shot), _poses(shot, subject)
    _shadow(canvas, subject, poses, scene == "flat")
    for pose in poses:
        for face in subject.faces(pose):
            put(canvas, face)
    if rng.random() < 0.2:
        _occlude(canvas, shot)
    return _develop(canvas, shot)

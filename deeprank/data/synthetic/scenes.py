"""Render scenes: a background with other products, the product and its copies, shadows, and the effects of a camera."""

import math
import random
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFilter

from deeprank.data.synthetic.camera import apply_camera_effects
from deeprank.data.synthetic.geometry import BILINEAR, Pose, gain_table, paste_face, upright_rectangle
from deeprank.data.synthetic.prints import draw_text
from deeprank.data.synthetic.products import KINDS, VARIANTS_PER_CYCLE, mix_colors
from deeprank.data.synthetic.shapes import Product, SolidOfRevolution, create_product
from deeprank.data.synthetic.textures import GROUNDS, WALLS, surface_textures
from deeprank.data.synthetic.types import Point

FIRST_CLUTTER_CLASS = 10_008  # class index of the first product used as clutter: a first variant, far beyond the labeled classes
# Colors that tint walls and grounds: neutral, cream, sage, sky, clay, slate, sand, rose, mint.
SURFACE_COLORS = ["#fafafa", "#fffae6", "#dff7da", "#d8f2ff", "#ffdbc2", "#b8c7db", "#ffedc7", "#ffe6e6", "#d1faf0"]


@dataclass(frozen=True, slots=True)
class Scene:
    """The first random choices of an image.

    Attributes:
        rng: source of all further random numbers of the image.
        setting: table, shelf, flat (seen from above) or studio.
        size: shorter side of the image, in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.
        ground_y: height in the image at which products stand, in pixels from the top.

    """

    rng: random.Random
    setting: str
    size: int
    width: int
    height: int
    ground_y: float


@lru_cache(maxsize=256)
def _clutter_product(kind_index: int, height: int, size: int) -> Image.Image:
    """Return a product used as clutter, RGBA of about `height` pixels (less if it is wide)."""
    clutter, transparent = create_product(FIRST_CLUTTER_CLASS + kind_index * VARIANTS_PER_CYCLE, size), (128, 128, 128, 0)
    scale = height / max(clutter.height, 0.8 * clutter.width)
    center, bottom = math.ceil(clutter.width * scale), math.ceil(height * 1.4)
    canvas = Image.new("RGBA", (2 * center, bottom + height), transparent)
    for face in clutter.faces(Pose((kind_index % 5 - 2) * 0.2, 0.12, 0, scale, center, bottom, (-0.4, -0.5, 0.75))):
        layer = Image.new("RGBA", canvas.size, transparent)
        paste_face(layer, face)
        canvas.alpha_composite(layer)
    return canvas.crop(canvas.getbbox()).filter(ImageFilter.BoxBlur(size / 300))


def _random_gains(rng: random.Random, brightness: float) -> list[float]:
    """Return the gains of red, green and blue of a random tint."""
    return [brightness * level / 250 for level in mix_colors(rng.choice(SURFACE_COLORS))]


def _random_surface(scene: Scene, texture: int, w: int, h: int, foreshortening: float = 1) -> Image.Image:
    """Return a random crop of a texture, w x h pixels, tinted; a foreshortening above 1 shows more of its height."""
    source, rng = surface_textures(scene.size)[texture], scene.rng
    zoom = rng.uniform(0.7, 1.15)
    crop_width, crop_height = min(source.width, w * zoom), min(source.height, h * zoom * foreshortening)
    left, top = rng.uniform(0, source.width - crop_width), rng.uniform(0, source.height - crop_height)
    crop = source.resize((w, h), BILINEAR, (left, top, left + crop_width, top + crop_height))
    return crop.point(gain_table(*_random_gains(rng, rng.uniform(0.65, 1.1))))


def _paste_clutter(canvas: Image.Image, scene: Scene, foot: Point, height: float, lying: bool = False) -> None:
    """Paste a random product of about `height` pixels, the center of its foot at a point; a lying one is rotated at random."""
    step = max(4, scene.size // 16)  # Few different heights, so that the cache of products is used.
    clutter = _clutter_product(scene.rng.randrange(len(KINDS)), max(1, round(height / step)) * step, scene.size)
    if lying:
        clutter = clutter.rotate(scene.rng.choice((90, 180, 270)), expand=True)
    canvas.paste(clutter, (round(foot[0] - clutter.width / 2), round(foot[1] - clutter.height)), clutter)


def _background(scene: Scene) -> Image.Image:
    """Return the image without the product."""
    rng, w, h, ground_y, size = scene.rng, scene.width, scene.height, scene.ground_y, scene.size
    if scene.setting == "studio":
        return _studio_background(scene)
    ground = rng.choice(GROUNDS)
    if scene.setting == "flat":
        canvas = _random_surface(scene, ground, w, h)
        for _ in range(rng.choice((0, 1, 2, 2, 3))):
            foot = rng.choice((-0.08, 0, 1, 1.08)) * w, rng.uniform(0.3, 1.3) * h
            _paste_clutter(canvas, scene, foot, rng.uniform(0.5, 0.9) * size, lying=True)
        return canvas
    # The far background is drawn at half the size: it is out of focus, and this is faster.
    canvas = _random_surface(scene, rng.choice(WALLS), w // 2, h // 2)
    if scene.setting == "shelf":
        canvas, clutter_height = canvas.point(gain_table(0.65, 0.65, 0.65)), rng.uniform(0.2, 0.34) * h
        for k in range(5):
            _paste_clutter(canvas, scene, (w * (k + rng.uniform(0.2, 0.8)) / 10, (ground_y - 0.04 * h) / 2), clutter_height)
        canvas = canvas.resize((w, h), BILINEAR)
        _draw_shelf_board(canvas, scene)
        return canvas
    horizon = int(ground_y - rng.uniform(0.12, 0.4) * h)
    canvas = canvas.filter(ImageFilter.BoxBlur(size / 180))
    for _ in range(rng.choice((0, 1, 2, 3, 4))):
        _paste_clutter(canvas, scene, (rng.random() * w / 2, (horizon + 0.05 * h) / 2), rng.uniform(0.15, 0.3) * h)
    canvas = canvas.filter(ImageFilter.BoxBlur(size / 320)).resize((w, h), BILINEAR)
    canvas.paste(_random_surface(scene, ground, w, h - horizon, 2), (0, horizon))
    for _ in range(rng.choice((0, 0, 1, 2))):
        foot = rng.choice((-0.02, 0.05, 0.95, 1.02)) * w, ground_y - rng.uniform(0, 0.1) * h
        _paste_clutter(canvas, scene, foot, rng.uniform(0.4, 0.7) * h)
    return canvas


def _studio_background(scene: Scene) -> Image.Image:
    """Return a gradient in a random color."""
    gains = _random_gains(scene.rng, scene.rng.uniform(120, 235))
    gradient = Image.new("RGB", (2, 4))
    brightness = (0.8, 0.75, 0.95, 0.9, 1, 1, 0.85, 0.8)
    gradient.putdata([tuple(min(255, int(factor * gain)) for gain in gains) for factor in brightness])
    return gradient.resize((scene.width, scene.height), Image.Resampling.BICUBIC)


def _draw_shelf_board(canvas: Image.Image, scene: Scene) -> None:
    """Draw the board of a shelf with price tags below the ground."""
    rng, size, gray, edge = scene.rng, scene.size, scene.rng.randint(120, 240), int(scene.ground_y + 0.03 * scene.height)
    draw = ImageDraw.Draw(canvas)
    top = int(scene.ground_y - 0.05 * scene.height)
    draw.rectangle((0, top, scene.width, edge), fill=mix_colors((gray, gray, gray), "#000", 0.25))
    draw.rectangle((0, edge, scene.width, scene.height), fill=(gray, gray, gray))
    for k in range(rng.randint(1, 3)):
        x, price = scene.width * (rng.random() + k) / 3, f"{rng.randint(0, 9)}.{rng.randint(10, 99)}"
        draw.rectangle((x, edge + 2, x + 0.16 * size, edge + 0.09 * size), fill="#fff8d8")
        draw_text(draw, price, (x + 0.08 * size, edge + 0.05 * size), (0.12 * size, 0.07 * size), "#222")


def _occlude(canvas: Image.Image, scene: Scene) -> None:
    """Cover a part of the image with another product at the edge, or with a price sticker."""
    rng, size, w, h = scene.rng, scene.size, scene.width, scene.height
    if rng.random() < 0.6:
        foot = rng.choice((-0.02, 0.06, 0.94, 1.02)) * w, h * rng.uniform(1.05, 1.3)
        _paste_clutter(canvas, scene, foot, h * rng.uniform(0.55, 0.8))
        return
    sticker_width, sticker_height = size // 5, size // 9
    sticker = Image.new("RGBA", (sticker_width, sticker_height), rng.choice(("#ffe13c", "#fafaf5", "#e63c32")))
    center, box = (sticker_width / 2, sticker_height / 2), (sticker_width * 0.8, sticker_height * 0.8)
    draw_text(ImageDraw.Draw(sticker), f"-{rng.randint(1, 9)}0%", center, box, "#222")
    sticker = sticker.rotate(rng.uniform(-20, 20), BILINEAR, expand=True)
    canvas.paste(sticker, (int(rng.uniform(0.3, 0.6) * w), int(rng.uniform(0.35, 0.75) * h)), sticker)


def _poses(scene: Scene, product: Product) -> list[Pose]:
    """Return the poses of the product's copies, and last the pose of the product itself."""
    rng, w, h, flat = scene.rng, scene.width, scene.height, scene.setting == "flat"
    yaw = rng.uniform(-0.3, 0.3) if flat else rng.choice((-1, 1)) * rng.uniform(0.05, 0.75)
    pitch = rng.uniform(-0.08, 0.08) if flat else rng.uniform(-0.02, 0.36)
    roll = rng.uniform(-0.7, 0.7) if flat else rng.gauss(0, 0.05)
    is_round = isinstance(product, SolidOfRevolution)
    visible_width = product.width if is_round else product.width * math.cos(yaw) + product.depth * abs(math.sin(yaw))
    scale = min(rng.uniform(0.6, 0.98) * scene.ground_y / product.height, rng.uniform(0.55, 0.9) * w / visible_width)
    light = (rng.uniform(-0.8, 0.8), rng.uniform(-0.65, -0.1), 0.75)
    x, y = w * rng.uniform(0.36, 0.64), scene.ground_y
    if flat:
        center_y, half_height = h * rng.uniform(0.4, 0.6), product.height * scale / 2
        x, y = x - math.sin(roll) * half_height, center_y + math.cos(roll) * half_height
    pose = Pose(yaw, pitch, roll, scale, x, y, light)
    side = rng.choice((-1, 1))
    num_copies = rng.choices((0, 1, 2), {"shelf": (2, 3, 5), "studio": (1, 0, 0)}.get(scene.setting, (7, 2, 1)))[0]
    copies = []
    for k in range(num_copies):
        step = side * (1 - 2 * k) * visible_width * scale * rng.uniform(1.02, 1.2)
        copy_x, copy_y = x + step * math.cos(roll), y + step * math.sin(roll) + rng.uniform(-0.02, 0.01) * h
        copies.append(replace(pose, x=copy_x, y=copy_y, yaw=yaw + rng.gauss(0, 0.15), roll=roll + rng.gauss(0, 0.02)))
    return [*copies, pose]


def _draw_shadows(canvas: Image.Image, product: Product, poses: list[Pose], flat: bool) -> None:
    """Darken the ground beside and under a product and its copies."""
    cell = max(2, min(canvas.size) // 42)
    mask = Image.new("L", (canvas.width // cell + 1, canvas.height // cell + 1))
    draw = ImageDraw.Draw(mask)
    for pose in poses:
        front_foot = (0, 0, -product.depth / 2)
        points = product.project((*upright_rectangle(product.width / 2, -product.height), front_foot), pose) / cell
        (x3, y3), (x2, y2), (x1, y1), (x0, y0), (_, front_y) = points.tolist()
        tall, wide = y0 - y3, abs(x1 - x0)
        if flat:
            dx, dy = -pose.light[0] * 0.12 * wide, 0.06 * wide
            draw.polygon([(x + dx, y + dy) for x, y in ((x3, y3), (x2, y2), (x1, y1), (x0, y0))], fill=120)
            continue
        dx, dy = -pose.light[0] * 0.7 * tall, -0.14 * tall
        draw.polygon([(x0, y0), (x1, y1), (x1 + dx, y1 + dy), (x0 + dx, y0 + dy)], fill=80)
        x, y, depth = (x0 + x1) / 2, (y0 + y1) / 2, max(1.0, front_y - (y0 + y1) / 2)
        draw.ellipse((x - wide * 0.58, y - depth, x + wide * 0.58, y + depth * 1.15 + 0.5), fill=190)
    soft_mask = mask.filter(ImageFilter.BoxBlur(1)).resize((mask.width * cell, mask.height * cell), BILINEAR)
    canvas.paste((12, 10, 14), (0, 0), soft_mask.crop((0, 0, *canvas.size)))


def draw_image(class_index: int, image_index: int, seed: int = 0, size: int = 256) -> Image.Image:
    """Return a synthetic RGB image of a class; equal arguments give equal pixels.

    Args:
        class_index: of the product, 0 or more.
        image_index: number of the image within its class.
        seed: random seed.
        size: shorter side in pixels, at least 32.

    Raises:
        DataError: `class_index` is negative.

    """
    product = create_product(class_index, size)
    rng = random.Random(f"{seed}/{class_index}/{image_index}")
    long_side = round(size * rng.choice((1, 1.25, 4 / 3, 4 / 3, 1.5)))
    width, height = (size, long_side) if rng.random() < (0.7 if product.height > product.width else 0.4) else (long_side, size)
    setting = rng.choices(("table", "shelf", "flat", "studio"), (5, 3, 2, 2))[0]
    scene = Scene(rng, setting, size, width, height, height * rng.uniform(0.78, 0.95))
    canvas, poses = _background(scene), _poses(scene, product)
    _draw_shadows(canvas, product, poses, setting == "flat")
    for pose in poses:
        for face in product.faces(pose):
            paste_face(canvas, face)
    if rng.random() < 0.2:
        _occlude(canvas, scene)
    return apply_camera_effects(canvas, rng, size)

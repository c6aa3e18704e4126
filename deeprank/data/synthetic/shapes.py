"""Build the drawn products: solids of revolution, boxes and bags, and their faces as a camera sees them."""

import math
import random
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from deeprank.data.synthetic.geometry import Face, Pose, gain_table, shade, upright_rectangle
from deeprank.data.synthetic.prints import draw_front, draw_stripes, draw_text
from deeprank.data.synthetic.products import KINDS, Kind, VariantDetails, kind_and_variant, mix_colors, variant_details
from deeprank.data.synthetic.textures import smooth_noise
from deeprank.data.synthetic.types import FloatArray, Vector


class Profile(NamedTuple):
    """Profile of a solid of revolution; all lengths are fractions of its height.

    Attributes:
        cap_radius: of the cap.
        outline: (distance from the top, radius) of the body, from the end of the cap to the bottom.
        label: top, bottom, and the fraction of the circumference that the label covers.

    """

    cap_radius: float
    outline: tuple[tuple[float, float], ...]
    label: tuple[float, float, float]


PROFILES = {
    "flask": Profile(0.068, ((0.09, 0.055), (0.15, 0.06), (0.36, 0.165), (0.96, 0.165), (1, 0.15)), (0.4, 0.88, 1)),
    "wine": Profile(0.048, ((0.2, 0.042), (0.3, 0.048), (0.45, 0.13), (0.98, 0.13), (1, 0.12)), (0.5, 0.9, 0.42)),
    "squeeze": Profile(0.085, ((0.16, 0.1), (0.3, 0.165), (0.6, 0.15), (0.97, 0.17), (1, 0.16)), (0.34, 0.9, 0.5)),
    "jar": Profile(0.28, ((0.17, 0.27), (0.24, 0.31), (0.95, 0.31), (1, 0.28)), (0.36, 0.87, 0.6)),
    "squat": Profile(0.36, ((0.2, 0.34), (0.3, 0.43), (0.6, 0.45), (0.92, 0.42), (1, 0.36)), (0.36, 0.86, 0.55)),
    "slim": Profile(0.19, ((0.22, 0.17), (0.28, 0.2), (0.97, 0.2), (1, 0.18)), (0.34, 0.9, 0.7)),
    "can": Profile(0.33, ((0.03, 0.32), (0.97, 0.32), (1, 0.33)), (0.06, 0.94, 1)),
    "soda": Profile(0.2, ((0.03, 0.2), (0.12, 0.25), (0.92, 0.25), (1, 0.2)), (0.1, 0.94, 1)),
    "flat": Profile(1.2, ((0.08, 1.18), (0.92, 1.18), (1, 1.2)), (0.12, 0.9, 1)),
    "cup": Profile(0.39, ((0.04, 0.37), (1, 0.28)), (0.1, 0.92, 1)),
    "tub": Profile(0.57, ((0.14, 0.54), (0.96, 0.47), (1, 0.45)), (0.2, 0.94, 1)),
}
BOX_SIZES = {"tall": (0.7, 0.24), "wide": (1.3, 0.7), "long": (1.75, 0.55), "carton": (0.46, 0.44)}  # width, depth per height
BAG_SIZES = {"pouch": (0.68, 0.05), "bag": (0.76, 0.03)}  # width per height, narrowing at half height
FRUIT_MOTIFS = ("berry", "chili", "orange")  # of products that show pieces of fruit


class Product(ABC):
    """A drawn product; its sizes are in pixels."""

    def __init__(self, width: float, height: int, depth: float) -> None:
        self.width, self.height, self.depth = width, height, depth

    def project(self, points: tuple[Vector, ...], pose: Pose) -> FloatArray:
        """Return points relative to the product's foot (n, 3) as positions in the image (n, 2)."""
        return pose.project(points, distance=4 * max(self.width, self.height))

    @abstractmethod
    def faces(self, pose: Pose) -> list[Face]:
        """Return the shaded faces that the camera sees."""


class SolidOfRevolution(Product):
    """A solid of revolution: its texture, unrolled, and the mapping from image pixels to the texture.

    The image is taller than the texture, so that the product can be tilted.

    Attributes:
        texture: (height, circumference, 3) colors of the surface.
        radius: (rows, 1) radius in pixels.
        sine: (rows, columns) horizontal position from the axis over the radius, -1 to 1; the x of the surface normal.
        cosine: (rows, columns) the z of the surface normal, 0 at the contour to 1 at the axis.
        opacity: (rows, columns) 0 outside of the contour, 1 inside.
        column: (rows, columns) texture column that shows at yaw 0.
        gloss: strength of the highlights.

    """

    def __init__(self, kind: Kind, details: VariantDetails, size: float) -> None:
        profile = PROFILES[kind.shape]
        outline = profile.outline
        widest = max(profile.cap_radius, *(r for _, r in outline))
        h = round(size / max(1, 1.35 * widest))
        circumference = round(2 * math.pi * widest * h)
        super().__init__(2 * widest * h, h, 2 * widest * h)
        rows = (np.arange(h) + 0.5) / h
        body = np.interp(rows, [y for y, _ in outline], [r for _, r in outline])
        body = np.convolve(np.pad(body, 4, mode="edge"), np.ones(9) / 9, "valid")
        radius = np.where(rows < outline[0][0], profile.cap_radius, body) * h
        self.radius = np.pad(radius, math.ceil(0.4 * widest * h) + 2, mode="edge").astype(np.float32)[:, None]
        x = np.arange(-math.ceil(widest * h) - 1, math.ceil(widest * h) + 1, dtype=np.float32)[None] + 0.5
        self.sine = np.clip(x / self.radius, -1, 1)
        self.cosine = np.sqrt(1 - self.sine**2)
        self.opacity = np.clip(self.radius - np.abs(x) + 0.5, 0, 1)
        self.column = np.arcsin(self.sine) * (circumference / (2 * math.pi)) + circumference / 2
        self.texture, self.gloss = np.asarray(_unrolled_texture(kind, details, circumference, h)), kind.gloss

    def faces(self, pose: Pose) -> list[Face]:
        """Return one face: the product rotated by the yaw and seen from the pitch."""
        h, circumference, _ = self.texture.shape
        y = (np.arange(len(self.radius), dtype=np.float32) - (len(self.radius) - h) // 2)[:, None]
        tilt = math.sin(pose.pitch)
        row = y - tilt * self.radius * self.cosine
        column = (self.column + pose.yaw * circumference / (2 * math.pi)).astype(np.int32) % circumference
        texture = self.texture[np.clip(row.astype(np.int32), 0, h - 1), column]
        opacity = self.opacity * np.clip(h - row, 0, 1)
        nx, ny, nz = self.sine, np.zeros_like(opacity), self.cosine
        above = row < 0
        opacity[above] = 0
        if tilt > 0.02:
            # The top of the cap is an ellipse with a rim.
            ellipse = self.sine**2 + (y / (tilt * self.radius)) ** 2
            lid = above & (ellipse < 1)
            brightness = np.where(ellipse > 0.8, 0.75, np.where(ellipse > 0.64, 1.12, 1.0))[lid]
            texture[lid] = np.minimum(self.texture[1, 0] * brightness[:, None] + 12, 255)
            opacity[lid] = self.opacity[lid]
            nx, ny, nz = np.where(lid, 0, nx), np.where(lid, -0.8, ny), np.where(lid, 0.6, nz)
        image = shade(texture, opacity, (nx, ny, nz), pose.light, self.gloss)
        margin = (image.height - self.height) / 2
        rectangle = upright_rectangle(image.width / 2, -self.height - margin, margin)
        return [Face(image, 0, self.project(rectangle, replace(pose, yaw=0)))]


def _unrolled_texture(kind: Kind, details: VariantDetails, w: int, h: int) -> Image.Image:
    """Return the surface of a solid of revolution, w x h pixels, once around; the label's center is the center."""
    profile = PROFILES[kind.shape]
    cap, (top, bottom, coverage) = profile.outline[0][0], profile.label
    lid_color = mix_colors(kind.cap_color, details.accent_color, (0, 0.5, 0.25)[details.label_shade])
    texture = Image.new("RGB", (w, h), kind.body_color)
    draw = ImageDraw.Draw(texture)
    draw.rectangle((0, 0, w, int((cap + 0.07) * h)), fill=mix_colors(kind.body_color, "#fff", 0.35))
    rng = random.Random(kind.name)
    for _ in range(70 if kind.motif in FRUIT_MOTIFS else 0):
        x, y, r = rng.random() * w, rng.uniform(cap + 0.12, 1) * h, rng.uniform(0.02, 0.05) * h
        draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=mix_colors(kind.body_color, kind.motif_color, rng.uniform(0.1, 0.6)))
    draw.rectangle((0, 0, w, max(0, int(cap * h) - 1)), fill=lid_color)
    for x in range(0, w, max(4, w // 70) if cap > 0.05 else w):
        draw.line((x, 2, x, int(cap * h) - 2), fill=mix_colors(lid_color, "#000", 0.2))
    label = draw_front(kind, details, round(w * min(0.36, coverage)), round((bottom - top) * h))
    if coverage == 1:
        texture.paste(label.crop((0, 0, 1, label.height)).resize((w, label.height)), (0, round(top * h)))
        for k in range(9):  # small print on the left, a bar code on the right
            y = round((top + (bottom - top) * (0.3 + 0.05 * k)) * h)
            draw.line((w * 0.04, y, w * (0.2 if k % 3 else 0.16), y), fill=kind.ink_color)
            draw.line((w * (0.84 + k / 90), h * 0.4, w * (0.84 + k / 90), h * 0.55), fill="#222")
    texture.paste(label, ((w - label.width) // 2, round(top * h)))
    return texture


class Box(Product):
    """A box; front, side and top are RGBA images with a transparent border of one pixel."""

    def __init__(self, kind: Kind, details: VariantDetails, size: float) -> None:
        relative_width, relative_depth = BOX_SIZES[kind.shape]
        h = round(size / max(1, relative_width * 0.9))
        w, d = round(relative_width * h), round(relative_depth * h)
        super().__init__(w, h, d)
        color = mix_colors(kind.body_color, kind.paper_color, 0.3)
        side, top = Image.new("RGB", (d, h), color), Image.new("RGB", (w, d), mix_colors(color, "#fff", 0.15))
        draw = ImageDraw.Draw(side)
        draw.rectangle((d * 0.12, h * 0.3, d * 0.88, h * 0.7), fill="#fffdf4", outline=kind.ink_color)
        for k in range(10):
            draw.line((d * 0.18, h * (0.34 + k * 0.035), d * (0.8 if k % 3 else 0.6), h * (0.34 + k * 0.035)), fill="#666")
        draw_text(draw, kind.brand, (d / 2, h * 0.16), (d * 0.8, h * 0.12), kind.ink_color)
        draw_stripes(draw, details, d, h)
        draw = ImageDraw.Draw(top)
        draw.line((0, d / 2, w, d / 2), fill=mix_colors(color, "#000", 0.25), width=max(1, d // 40))
        draw_text(draw, kind.brand, (w / 2, d * 0.76), (w * 0.6, d * 0.3), kind.ink_color)
        images = (draw_front(kind, details, w, h), side, top)
        self.front, self.side, self.top = (ImageOps.expand(image.convert("RGBA"), 1, (*color, 0)) for image in images)

    def faces(self, pose: Pose) -> list[Face]:
        """Return the faces that are turned to the camera."""
        w, h, d = self.width / 2, self.height, self.depth / 2
        (lx, ly, lz), cos, sin = pose.light, math.cos(pose.yaw), math.sin(pose.yaw)
        s = 1 if sin > 0 else -1  # 1 where the right side is visible, -1 where the left one is
        faces: list[Face] = []
        for image, points, light in (
            (self.top, ((-w, -h, d), (w, -h, d), (w, -h, -d), (-w, -h, -d)), 0.2 - ly),
            (self.side, ((s * w, -h, -s * d), (s * w, -h, s * d), (s * w, 0, s * d), (s * w, 0, -s * d)), lz * abs(sin) + lx * s * cos),
            (self.front, upright_rectangle(w, -h, 0, -d), lz * cos - lx * sin),
        ):
            corners = self.project(points, pose)
            (ax, ay), (bx, by), _, (ex, ey) = corners.tolist()
            # The area is positive where the face is turned to the camera.
            if (bx - ax) * (ey - ay) - (by - ay) * (ex - ax) > 4:
                gain = 0.55 + 0.55 * max(0, light)
                faces.append(Face(image.point(gain_table(gain, gain, gain, 1)), 1, corners))
        return faces


class Bag(Product):
    """A pillow bag with crimped ends and wrinkles, seen from the front: texture, opacity and surface normals."""

    def __init__(self, kind: Kind, details: VariantDetails, size: float) -> None:
        relative_width, narrowing = BAG_SIZES[kind.shape]
        h, w = round(size), round(relative_width * size)
        super().__init__(w, h, 0.3 * w)
        y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w * 2 - 1, indexing="ij")
        half_width = 1 - narrowing + narrowing * np.cos(2 * np.pi * y) - 0.01 * smooth_noise(3, h, w, (3,), 3)
        end = np.minimum(y, 1 - y)
        zigzag = 0.012 + 0.006 * np.abs((x * 16) % 2 - 1)
        self.opacity = np.clip((half_width - np.abs(x)) * w / 2, 0, 1) * np.clip((end - zigzag) * h, 0, 1)
        bulge = np.clip(1 - np.abs(x) ** 2.5, 0, 1) * np.sin(np.pi * np.clip(y, 0.05, 0.95)) ** 0.6
        folds = smooth_noise(5, h, w, (14, 26)) * 0.02 * np.clip(0.8 - end * 2.6, 0, 1)
        wrinkles = smooth_noise(len(kind.name), h, w, (4, 8, 16)) * 0.02 + folds
        down, right = np.gradient((0.28 * bulge + wrinkles) * h)
        down += 0.5 * np.sin(y * h * 1.6) * (end < 0.075)
        norm = np.sqrt(right**2 + down**2 + 1)
        nx, ny, nz = ((a / norm).astype(np.float32) for a in (-right, -down, np.ones_like(norm)))
        texture = Image.new("RGB", (w, h), kind.body_color)
        texture.paste(draw_front(kind, details, w, round(0.86 * h)), (0, round(0.07 * h)))
        self.texture, self.normals, self.gloss = np.asarray(texture), (nx, ny, nz), kind.gloss

    def faces(self, pose: Pose) -> list[Face]:
        """Return one face: the front."""
        image = shade(self.texture, self.opacity, self.normals, pose.light, self.gloss)
        return [Face(image, 0, self.project(upright_rectangle(self.width / 2, -self.height), pose))]


@lru_cache(maxsize=64)
def create_product(class_index: int, size: int) -> Product:
    """Return the drawn product of a class for images whose shorter side is `size` pixels."""
    kind_index, variant = kind_and_variant(class_index)
    kind = KINDS[kind_index]
    product_class = SolidOfRevolution if kind.shape in PROFILES else Box if kind.shape in BOX_SIZES else Bag
    return product_class(kind, variant_details(kind_index, variant), 0.86 * size)

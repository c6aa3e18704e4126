"""The drawn products: solids of revolution, boxes and bags; how they look from where the camera stands."""

import math
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from deeprank.data.synthetic.drawing import Floats, front, grid, stripes, write
from deeprank.data.synthetic.products import KINDS, Detail, Kind, detail_of, locate, mix

SMOOTH = Image.Resampling.BILINEAR
Vector = tuple[float, float, float]
Face = tuple[Image.Image, int, Floats]  # RGBA picture, its clear border in pixels, the corners (4 x 2, clockwise) where it goes

# Solids of revolution: cap's radius, (height from the top, radius) of the body from where the cap ends, label's top and bottom
# and how far around it goes (1: all around); all lengths as fractions of the height.
SOLIDS: dict[str, tuple[float, tuple[tuple[float, float], ...], tuple[float, float, float]]] = {
    "flask": (0.068, ((0.09, 0.055), (0.15, 0.06), (0.36, 0.165), (0.96, 0.165), (1, 0.15)), (0.4, 0.88, 1)),
    "wine": (0.048, ((0.2, 0.042), (0.3, 0.048), (0.45, 0.13), (0.98, 0.13), (1, 0.12)), (0.5, 0.9, 0.42)),
    "squeeze": (0.085, ((0.16, 0.1), (0.3, 0.165), (0.6, 0.15), (0.97, 0.17), (1, 0.16)), (0.34, 0.9, 0.5)),
    "jar": (0.28, ((0.17, 0.27), (0.24, 0.31), (0.95, 0.31), (1, 0.28)), (0.36, 0.87, 0.6)),
    "squat": (0.36, ((0.2, 0.34), (0.3, 0.43), (0.6, 0.45), (0.92, 0.42), (1, 0.36)), (0.36, 0.86, 0.55)),
    "slim": (0.19, ((0.22, 0.17), (0.28, 0.2), (0.97, 0.2), (1, 0.18)), (0.34, 0.9, 0.7)),
    "can": (0.33, ((0.03, 0.32), (0.97, 0.32), (1, 0.33)), (0.06, 0.94, 1)),
    "soda": (0.2, ((0.03, 0.2), (0.12, 0.25), (0.92, 0.25), (1, 0.2)), (0.1, 0.94, 1)),
    "flat": (1.2, ((0.08, 1.18), (0.92, 1.18), (1, 1.2)), (0.12, 0.9, 1)),
    "cup": (0.39, ((0.04, 0.37), (1, 0.28)), (0.1, 0.92, 1)),
    "tub": (0.57, ((0.14, 0.54), (0.96, 0.47), (1, 0.45)), (0.2, 0.94, 1)),
}
BOXES = {"tall": (0.7, 0.24), "wide": (1.3, 0.7), "long": (1.75, 0.55), "carton": (0.46, 0.44)}  # width, depth
BAGS = {"pouch": (0.68, 0.05), "bag": (0.76, 0.03)}  # width, how much the waist is narrower


@dataclass(frozen=True, slots=True)
class Pose:
    """A product as the camera sees it: angles in radians, pixels per drawn pixel, where its foot stands, light's direction."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    x: float
    y: float
    light: Vector


def ramp(*gains: float) -> list[int]:
    """Return a lookup table for Image.point that multiplies each channel by its gain."""
    return [level for gain in gains for level in np.minimum(np.arange(256) * gain, 255).astype(int).tolist()]


def upright(half: float, top: float, bottom: float = 0, away: float = 0) -> tuple[Vector, ...]:
    """Return the corners of a rectangle that faces the camera: 2 * half wide, its middle above the foot."""
    return (-half, top, away), (half, top, away), (half, bottom, away), (-half, bottom, away)


def _lit(skin: Floats, cover: Floats, slope: tuple[Floats, Floats, Floats], light: Vector, gloss: float) -> Image.Image:
    """Return a surface under a light, RGBA: its colors (RGB), opacity (0..1) and directions, all of them height x width."""
    (nx, ny, nz), (lx, ly, lz) = slope, light
    matt = 0.5 + 0.6 * np.maximum(nx * lx + ny * ly + nz * lz, 0)
    shine = np.maximum((nx * lx + ny * ly + nz * (lz + 1)) / math.hypot(lx, ly, lz + 1), 0) ** 2
    for _ in range(4):
        shine = shine * shine
    out = np.empty((*cover.shape, 4), np.uint8)
    out[..., :3] = np.minimum(skin * matt[..., None] + (shine * (170 * gloss))[..., None], 255)
    out[..., 3] = cover * 255
    return Image.fromarray(out)


class Product(ABC):
    """A drawn product; sizes in pixels."""

    def __init__(self, width: float, height: int, depth: float) -> None:
        self.width, self.height, self.depth = width, height, depth

    def project(self, points: tuple[Vector, ...], pose: Pose) -> Floats:
        """Return points (n x 3: right, down, away from the camera; from the product's foot) on the image (n x 2)."""
        far = 4 * max(self.width, self.height)
        px, py, pz = np.array(points, np.float32).T
        cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
        px, pz = px * cos + pz * sin, pz * cos - px * sin
        cos, sin = math.cos(pose.pitch), math.sin(pose.pitch)
        py, pz = py * cos - pz * sin, pz * cos + py * sin
        near = pose.scale * far / (far + pz)
        cos, sin = math.cos(pose.roll) * near, math.sin(pose.roll) * near
        return np.stack([px * cos - py * sin + pose.x, px * sin + py * cos + pose.y], 1)

    @abstractmethod
    def faces(self, pose: Pose) -> list[Face]:
        """Return the visible faces, lit, and where they go."""


class Solid(Product):
    """A solid of revolution: its skin once around and, for every pixel of its picture, what lies there.

    `radius` has a row's radius; `across` runs from -1 (left) to 1, `facing` from 0 (rim) to 1; `cover` is the opacity and `column`
    the skin's column when the product is not turned. The picture is taller than the skin, for tilting.
    """

    def __init__(self, kind: Kind, detail: Detail, unit: float) -> None:
        cap_radius, outline, _ = SOLIDS[kind.shape]
        widest = max(cap_radius, *(r for _, r in outline))
        h = round(unit / max(1, 1.35 * widest))
        w = round(2 * math.pi * widest * h)
        super().__init__(2 * widest * h, h, 2 * widest * h)
        rows = (np.arange(h) + 0.5) / h
        body = np.interp(rows, [y for y, _ in outline], [r for _, r in outline])
        body = np.convolve(np.pad(body, 4, mode="edge"), np.ones(9) / 9, "valid")
        padded = np.pad(np.where(rows < outline[0][0], cap_radius, body) * h, math.ceil(0.4 * widest * h) + 2, mode="edge")
        self.radius = padded.astype(np.float32)[:, None]
        x = np.arange(-math.ceil(widest * h) - 1, math.ceil(widest * h) + 1, dtype=np.float32)[None] + 0.5
        self.across = np.clip(x / self.radius, -1, 1)
        self.facing = np.sqrt(1 - self.across**2)
        self.cover = np.clip(self.radius - np.abs(x) + 0.5, 0, 1)
        self.column = np.arcsin(self.across) * (w / (2 * math.pi)) + w / 2
        self.skin, self.gloss = np.asarray(_skin(kind, detail, w, h)), kind.gloss

    def faces(self, pose: Pose) -> list[Face]:
        """Return one face: the picture, turned by pose.yaw and seen from pose.pitch above."""
        h, w, _ = self.skin.shape
        rise = (np.arange(len(self.radius), dtype=np.float32) - (len(self.radius) - h) // 2)[:, None]
        tilt = math.sin(pose.pitch)
        row = rise - tilt * self.radius * self.facing
        column = (self.column + pose.yaw * w / (2 * math.pi)).astype(np.int32) % w
        skin = self.skin[np.clip(row.astype(np.int32), 0, h - 1), column]
        cover = self.cover * np.clip(h - row, 0, 1)
        nx, ny, nz = self.across, np.zeros_like(cover), self.facing
        above = row < 0
        cover[above] = 0
        if tilt > 0.02:
            out = self.across**2 + (rise / (tilt * self.radius)) ** 2
            lid = above & (out < 1)
            rings = np.where(out > 0.8, 0.75, np.where(out > 0.64, 1.12, 1.0))[lid]
            skin[lid] = np.minimum(self.skin[1, 0] * rings[:, None] + 12, 255)
            cover[lid] = self.cover[lid]
            nx, ny, nz = np.where(lid, 0, nx), np.where(lid, -0.8, ny), np.where(lid, 0.6, nz)
        picture = _lit(skin, cover, (nx, ny, nz), pose.light, self.gloss)
        beyond = (picture.height - self.height) / 2
        return [(picture, 0, self.project(upright(picture.width / 2, -self.height - beyond, beyond), replace(pose, yaw=0)))]


def _skin(kind: Kind, detail: Detail, w: int, h: int) -> Image.Image:
    """Return the surface of a solid of revolution, once around: w x h pixels, the label's middle in the middle."""
    _, ((cap, _), *_), (top, bottom, around) = SOLIDS[kind.shape]
    lid = mix(kind.cap, detail.accent, (0, 0.5, 0.25)[detail.tint])
    skin = Image.new("RGB", (w, h), kind.body)
    draw = ImageDraw.Draw(skin)
    draw.rectangle((0, 0, w, int((cap + 0.07) * h)), fill=mix(kind.body, "#fff", 0.35))
    dice = random.Random(kind.name)
    for _ in range(70 if kind.motif in ("berry", "chili", "orange") else 0):  # pieces of fruit behind the glass
        x, y, r = dice.random() * w, dice.uniform(cap + 0.12, 1) * h, dice.uniform(0.02, 0.05) * h
        draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=mix(kind.body, kind.spot, dice.uniform(0.1, 0.6)))
    draw.rectangle((0, 0, w, max(0, int(cap * h) - 1)), fill=lid)
    for x in range(0, w, max(4, w // 70) if cap > 0.05 else w):
        draw.line((x, 2, x, int(cap * h) - 2), fill=mix(lid, "#000", 0.2))
    label = front(kind, detail, round(w * min(0.36, around)), round((bottom - top) * h))
    if around == 1:
        skin.paste(label.crop((0, 0, 1, label.height)).resize((w, label.height)), (0, round(top * h)))
        for k in range(9):  # small print on the left, a bar code on the right
            y = round((top + (bottom - top) * (0.3 + 0.05 * k)) * h)
            draw.line((w * 0.04, y, w * (0.2 if k % 3 else 0.16), y), fill=kind.ink)
            draw.line((w * (0.84 + k / 90), h * 0.4, w * (0.84 + k / 90), h * 0.55), fill="#222")
    skin.paste(label, ((w - label.width) // 2, round(top * h)))
    return skin


class Box(Product):
    """A box: front, side and top (RGBA), each within a clear border of one pixel."""

    def __init__(self, kind: Kind, detail: Detail, unit: float) -> None:
        wide, deep = BOXES[kind.shape]
        h = round(unit / max(1, wide * 0.9))
        w, d = round(wide * h), round(deep * h)
        super().__init__(w, h, d)
        body = mix(kind.body, kind.paper, 0.3)
        side, top = Image.new("RGB", (d, h), body), Image.new("RGB", (w, d), mix(body, "#fff", 0.15))
        draw = ImageDraw.Draw(side)
        draw.rectangle((d * 0.12, h * 0.3, d * 0.88, h * 0.7), fill="#fffdf4", outline=kind.ink)
        for k in range(10):
            draw.line((d * 0.18, h * (0.34 + k * 0.035), d * (0.8 if k % 3 else 0.6), h * (0.34 + k * 0.035)), fill="#666")
        write(draw, kind.brand, (d / 2, h * 0.16), (d * 0.8, h * 0.12), kind.ink)
        stripes(draw, detail, d, h)
        draw = ImageDraw.Draw(top)
        draw.line((0, d / 2, w, d / 2), fill=mix(body, "#000", 0.25), width=max(1, d // 40))
        write(draw, kind.brand, (w / 2, d * 0.76), (w * 0.6, d * 0.3), kind.ink)
        sides = (front(kind, detail, w, h), side, top)
        self.front, self.side, self.top = (ImageOps.expand(face.convert("RGBA"), 1, (*body, 0)) for face in sides)

    def faces(self, pose: Pose) -> list[Face]:
        """Return the faces that are turned to the camera."""
        w, h, d = self.width / 2, self.height, self.depth / 2
        (lx, ly, lz), cos, sin = pose.light, math.cos(pose.yaw), math.sin(pose.yaw)
        s = 1 if sin > 0 else -1  # the side that shows: right or left
        found: list[Face] = []
        for picture, corners, facing in (
            (self.top, ((-w, -h, d), (w, -h, d), (w, -h, -d), (-w, -h, -d)), 0.2 - ly),
            (self.side, ((s * w, -h, -s * d), (s * w, -h, s * d), (s * w, 0, s * d), (s * w, 0, -s * d)), lz * abs(sin) + lx * s * cos),
            (self.front, upright(w, -h, 0, -d), lz * cos - lx * sin),
        ):
            quad = self.project(corners, pose)
            (ax, ay), (bx, by), _, (ex, ey) = quad.tolist()
            if (bx - ax) * (ey - ay) - (by - ay) * (ex - ax) > 4:  # turned to the camera, and more than a line
                gain = 0.55 + 0.55 * max(0, facing)
                found.append((picture.point(ramp(gain, gain, gain, 1)), 1, quad))
        return found


class Bag(Product):
    """A pillow bag with crimped ends and wrinkles, seen from the front: color, opacity and direction of its surface."""

    def __init__(self, kind: Kind, detail: Detail, unit: float) -> None:
        wide, waist = BAGS[kind.shape]
        h, w = round(unit), round(wide * unit)
        super().__init__(w, h, 0.3 * w)
        y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w * 2 - 1, indexing="ij")
        half = 1 - waist + waist * np.cos(2 * np.pi * y) - 0.01 * grid(3, h, w, (3,), 3)
        end = np.minimum(y, 1 - y)
        zigzag = 0.012 + 0.006 * np.abs((x * 16) % 2 - 1)
        self.cover = np.clip((half - np.abs(x)) * w / 2, 0, 1) * np.clip((end - zigzag) * h, 0, 1)
        bulge = np.clip(1 - np.abs(x) ** 2.5, 0, 1) * np.sin(np.pi * np.clip(y, 0.05, 0.95)) ** 0.6
        wrinkles = grid(len(kind.name), h, w, (4, 8, 16)) * 0.02 + grid(5, h, w, (14, 26)) * 0.02 * np.clip(0.8 - end * 2.6, 0, 1)
        down, right = np.gradient((0.28 * bulge + wrinkles) * h)
        down += 0.5 * np.sin(y * h * 1.6) * (end < 0.075)
        norm = np.sqrt(right**2 + down**2 + 1)
        nx, ny, nz = ((a / norm).astype(np.float32) for a in (-right, -down, np.ones_like(norm)))
        skin = Image.new("RGB", (w, h), kind.body)
        skin.paste(front(kind, detail, w, round(0.86 * h)), (0, round(0.07 * h)))
        self.skin, self.slope, self.gloss = np.asarray(skin), (nx, ny, nz), kind.gloss

    def faces(self, pose: Pose) -> list[Face]:
        """Return one face: the front."""
        picture = _lit(self.skin, self.cover, self.slope, pose.light, self.gloss)
        return [(picture, 0, self.project(upright(self.width / 2, -self.height), pose))]


@lru_cache(maxsize=64)
def product(class_index: int, size: int) -> Product:
    """Return the drawn product of a class for images whose shorter side is `size` pixels."""
    place, variant = locate(class_index)
    kind = KINDS[place]
    body = Solid if kind.shape in SOLIDS else Box if kind.shape in BOXES else Bag
    return body(kind, detail_of(place, variant), 0.86 * size)


def put(canvas: Image.Image, face: Face) -> None:
    """Draw a face on the image, stretched to its corners."""
    picture, edge, quad = face
    left, top = (max(0, math.floor(v) - 1) for v in quad.min(0))
    right, bottom = (min(limit, math.ceil(v) + 1) for limit, v in zip(canvas.size, quad.max(0), strict=True))
    if right - left < 2 or bottom - top < 2:
        return
    w, h = picture.width - edge, picture.height - edge
    rows, goal = [], []
    for (x, y), (u, v) in zip((quad - (left, top)).tolist(), ((edge, edge), (w, edge), (w, h), (edge, h)), strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        goal += [u, v]
    terms = np.linalg.solve(np.array(rows), np.array(goal)).tolist()
    patch = picture.transform((right - left, bottom - top), Image.Transform.PERSPECTIVE, terms, SMOOTH)
    canvas.paste(patch, (left, top), patch)

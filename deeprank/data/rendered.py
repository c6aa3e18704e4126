"""Products drawn with Pillow and "photographed": offline demo data, test fixture and source of the scale tests.

Three levels of classes: a group (bottles), a kind (juice-bottle: shape and main design) and a variant, which differs
from its kind's other variants only in details: emblem, stripes, a word, a number, the cap's colour, the label's tint.
A product's look depends on its class index only and a photograph on (seed, class index, image index) only.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont
from rich.progress import Progress

from deeprank.errors import DataError

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]
Faces = list[tuple[Image.Image, Floats]]  # pictures (RGBA) and the four corners (x, y) where each one goes

VARIANTS = 3  # variants of a kind that follow each other in class order
FIRST_KINDS = 12  # kinds that the first classes share before the other kinds come in
POOL_FROM = 500  # photographs from which starting processes pays
CHUNK = 50  # photographs a process draws at a time
OTHERS = 10_000  # class index of the first product used as clutter, far beyond the labelled ones
SMOOTH = Image.Resampling.BILINEAR


@dataclass(frozen=True, slots=True)
class Kind:
    """Shape and main design that all variants of a kind share; colours: body, cap, paper, ink, spot."""

    group: str
    name: str
    shape: str
    colours: tuple[str, str, str, str, str]
    brand: str
    motif: str
    pattern: str
    layout: int
    gloss: float


def _kind(group: str, name: str, shape: str, colours: str, brand: str, motif: str, rest: str) -> Kind:
    """A row of the table: colours are five hex numbers, rest is "pattern layout gloss"."""
    body, cap, paper, ink, spot = (f"#{colour}" for colour in colours.split())
    pattern, layout, gloss = rest.split()
    return Kind(group, name, shape, (body, cap, paper, ink, spot), brand, motif, pattern, int(layout), float(gloss))


KINDS = (
    _kind("bottles", "juice-bottle", "flask", "f0972b 3c8c3f fff4dc d9541e f6a21e", "SUNNA", "orange", "rays 0 .7"),
    _kind("boxes", "cereal-box", "tall", "e7b64a c98f28 fbe3a0 b3341f f3c04b", "Krispo", "bowl", "wave 1 .1"),
    _kind("jars", "jam-jar", "jar", "8e1630 e9dfd0 fffaf0 8e1f3d c22a4e", "Maribel", "berry", "frame 0 .6"),
    _kind("tins", "soup-tin", "can", "b9bdc2 c9cdd2 f7efe0 b8261f e0452e", "Campo", "tomato", "split 2 .5"),
    _kind("pouches", "coffee-pouch", "pouch", "3b2418 2c1a10 4a2d1e e9cf9c c58b45", "MOKKA", "bean", "frame 1 .5"),
    _kind("cups", "yogurt-cup", "cup", "f6f7f5 dfe5ea f4f8fb 2b6fae e56b8c", "Almi", "flower", "wave 0 .4"),
    _kind("bottles", "wine-bottle", "wine", "1f2d20 5a1423 f3ead6 3a2a20 7c1f33", "Monteval", "grape", "frame 3 .8"),
    _kind("boxes", "tea-box", "wide", "2f6b4a 24543a d8e6c8 1f5a3c 8cb56a", "Ceylona", "leaf", "stripe 3 .1"),
    _kind("jars", "honey-jar", "squat", "d98a16 f0c24a fff3cf 7a4a10 e8a41f", "Beehall", "comb", "dots 1 .7"),
    _kind("tins", "fish-tin", "flat", "c3c8cc d3d6d9 dcecf4 1d4e7c e2b23c", "Atlantis", "fish", "wave 2 .7"),
    _kind("pouches", "crisps-bag", "bag", "d42b2b b32020 e23a30 fff3d0 f5c430", "Chipsy", "sun", "rays 1 .8"),
    _kind("cups", "ice-cream-tub", "tub", "f3d7df 8e5a3c fbe7ec 7a3b52 e58aa5", "Gelina", "cone", "dots 2 .3"),
    _kind("bottles", "ketchup-bottle", "squeeze", "b81f1c f4f1ea d3291f fff1d6 3d8b37", "Rosso", "tomato", "plain 1 .8"),
    _kind("boxes", "biscuit-box", "long", "2b4f8e 203f74 e7eefb 23468a d9a050", "Biskwi", "biscuit", "diagonal 2 .1"),
    _kind("jars", "pickle-jar", "jar", "7f9a3a 4f7a35 f4f6df 3f6b2c a8bf4d", "Gurkin", "chili", "stripe 1 .6"),
    _kind("tins", "soda-can", "soda", "c8ccd0 d4d7da 1e8fb3 f4fbff f2d43d", "ZIPP", "bolt", "diagonal 1 .8"),
    _kind("pouches", "rice-pouch", "pouch", "efe7d2 dccfae f5efdf 5d6b2a c2a14a", "Basmara", "wheat", "split 0 .2"),
    _kind("cups", "noodle-cup", "cup", "e4502e d4d7da f05a33 fff4d8 f7c63a", "Ramenko", "bowl", "rays 1 .2"),
    _kind("bottles", "water-bottle", "flask", "a9d4e8 2a6fb5 e9f6fc 1f5fa6 6db7dd", "Fonta", "mountain", "wave 2 .9"),
    _kind("boxes", "milk-carton", "carton", "f3f6f8 d8e2ea eef5fb 1f63a8 6fb2e0", "Lattea", "drop", "split 0 .2"),
    _kind("jars", "spice-jar", "slim", "a3521d 2a2a2a f6e7c8 6b2f12 d7792b", "Safari", "chili", "frame 2 .6"),
    _kind("tins", "coffee-tin", "can", "8c2a22 d6b25a 9c2f26 f6e2b4 d6b25a", "Torino", "bean", "plain 3 .5"),
    _kind("pouches", "pasta-bag", "bag", "27508f 1e4079 2f5fa8 fff3d8 f1c545", "Pastello", "wheat", "stripe 0 .6"),
    _kind("cups", "butter-tub", "tub", "f6e27a e3b92d fdf3b5 2f7d3c f2c12e", "Auenhof", "flower", "plain 2 .3"),
)

# Solids of revolution: cap's height and radius, (height from the top, radius) of the body, label's top and bottom and
# how far around it goes (1: all around); all lengths as fractions of the height.
SOLIDS: dict[str, tuple[float, float, tuple[tuple[float, float], ...], tuple[float, float, float]]] = {
    "flask": (0.09, 0.068, ((0.09, 0.055), (0.15, 0.06), (0.36, 0.165), (0.96, 0.165), (1, 0.15)), (0.4, 0.88, 1)),
    "wine": (0.2, 0.048, ((0.2, 0.042), (0.3, 0.048), (0.45, 0.13), (0.98, 0.13), (1, 0.12)), (0.5, 0.9, 0.42)),
    "squeeze": (0.16, 0.085, ((0.16, 0.1), (0.3, 0.165), (0.6, 0.15), (0.97, 0.17), (1, 0.16)), (0.34, 0.9, 0.5)),
    "jar": (0.17, 0.28, ((0.17, 0.27), (0.24, 0.31), (0.95, 0.31), (1, 0.28)), (0.36, 0.87, 0.6)),
    "squat": (0.2, 0.36, ((0.2, 0.34), (0.3, 0.43), (0.6, 0.45), (0.92, 0.42), (1, 0.36)), (0.36, 0.86, 0.55)),
    "slim": (0.22, 0.19, ((0.22, 0.17), (0.28, 0.2), (0.97, 0.2), (1, 0.18)), (0.34, 0.9, 0.7)),
    "can": (0.03, 0.33, ((0.03, 0.32), (0.97, 0.32), (1, 0.33)), (0.06, 0.94, 1)),
    "soda": (0.03, 0.2, ((0.03, 0.2), (0.12, 0.25), (0.92, 0.25), (1, 0.2)), (0.1, 0.94, 1)),
    "flat": (0.1, 0.85, ((0.1, 0.83), (0.9, 0.83), (1, 0.84)), (0.14, 0.86, 1)),
    "cup": (0.04, 0.39, ((0.04, 0.37), (1, 0.28)), (0.1, 0.92, 1)),
    "tub": (0.14, 0.57, ((0.14, 0.54), (0.96, 0.47), (1, 0.45)), (0.2, 0.94, 1)),
}
BOXES = {"tall": (0.7, 0.24), "wide": (1.3, 0.7), "long": (1.75, 0.55), "carton": (0.46, 0.44)}  # width, depth
BAGS = {"pouch": (0.68, 0.05), "bag": (0.76, 0.03)}  # width, how much the waist is narrower
PATTERNS = ("plain", "rays", "wave", "frame", "split", "stripe", "dots", "diagonal")
# Where things go on a front: brand's y, motif's x, y and radius, word's y; fractions of width, height, shorter side.
LAYOUTS = ((0.14, 0.5, 0.49, 0.24, 0.79), (0.27, 0.5, 0.62, 0.22, 0.1), (0.16, 0.3, 0.54, 0.27, 0.82),
           (0.52, 0.5, 0.25, 0.19, 0.68))  # fmt: skip
WORDS = ("classic", "mild", "extra", "light", "fresh", "natur", "gold", "bio", "pure", "rich", "family", "spicy",
         "sweet", "zero", "select", "old farm", "finest", "tender", "royal")  # fmt: skip
ACCENTS = ("#d8432f", "#2f6fd0", "#3a9a4a", "#e6a91f", "#7d4bb0", "#1f9c9c", "#d65a94", "#5a4636")
EMBLEMS = ("star", "heart", "leaf", "drop", "flower", "diamond", "crown", "moon", "sun", "bolt", "fish", "petals",
           "mountain")  # fmt: skip


def _shapes() -> dict[str, Floats]:
    """Closed outlines (points x 2) within about -1..1, y pointing down."""
    t = np.linspace(0, 2 * np.pi, 61, dtype=np.float32)[:-1]
    sin, cos = np.sin(t), np.cos(t)

    def polar(radius: Floats, angle: Floats = t) -> Floats:
        return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1).astype(np.float32)

    def points(*values: float) -> Floats:
        return np.array(values, np.float32).reshape(-1, 2)

    ten, many = np.arange(10, dtype=np.float32), np.arange(28, dtype=np.float32)
    heart = -(13 * cos - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17
    moon = np.concatenate([polar(np.ones_like(t))[5:56], polar(np.ones_like(t) * 0.8)[52:8:-1] + (0.0, -0.32)])
    return {
        "disc": polar(np.ones_like(t)),
        "oval": polar(np.ones_like(t)) * (0.62, 1),
        "bowl": np.concatenate([polar(np.ones_like(t))[15:46], points(-0.55, -0.1, 0.55, -0.1)]),
        "star": polar(np.where(ten % 2, 0.42, 1), ten * np.pi / 5),
        "sun": polar(np.where(many % 2, 0.68, 1), many * np.pi / 14),
        "hexagon": polar(np.ones(6, np.float32), np.arange(6, dtype=np.float32) * np.pi / 3),
        "flower": polar(0.72 + 0.28 * np.cos(6 * t)),
        "petals": polar(np.abs(np.cos(4 * t)) ** 0.4),
        "heart": np.stack([sin**3, heart], 1),
        "leaf": np.stack([0.5 * sin * np.abs(sin), -cos], 1),
        "drop": np.stack([0.85 * sin * np.abs(np.sin(t / 2)) ** 1.5, -cos], 1),
        "fish": np.stack([cos - sin**2 / 1.4142, 1.25 * cos * sin], 1),
        "moon": moon.astype(np.float32),
        "diamond": points(0, -1, 0.7, 0, 0, 1, -0.7, 0),
        "bolt": points(0.2, -1, -0.6, 0.15, -0.05, 0.15, -0.25, 1, 0.6, -0.25, 0.05, -0.25, 0.45, -1),
        "crown": points(-1, -0.6, -0.45, 0, 0, -0.9, 0.45, 0, 1, -0.6, 0.8, 0.7, -0.8, 0.7),
        "mountain": points(-1, 0.8, -0.25, -0.7, 0.15, -0.05, 0.4, -0.4, 1, 0.8),
        "cone": points(-0.5, -0.2, 0.5, -0.2, 0, 1.1),
    }


SHAPES = _shapes()
# Layers of a motif: shape, x, y, size, turn in degrees, colour (i ink, p paper, s spot, a accent, g green, k brown,
# w white, or d for a darker spot).
Layer = tuple[str, float, float, float, float, str]
MOTIFS: dict[str, tuple[Layer, ...]] = {
    "orange": (("disc", 0, 0.08, 0.9, 0, "s"), ("disc", 0, 0.08, 0.76, 0, "w"), ("petals", 0, 0.08, 0.72, 0, "s"),
               ("leaf", 0.42, -0.86, 0.42, 65, "g")),
    "bowl": (("disc", -0.35, -0.2, 0.2, 0, "k"), ("disc", 0.05, -0.3, 0.24, 0, "s"), ("disc", 0.42, -0.2, 0.2, 0, "k"),
             ("bowl", 0, 0, 0.95, 0, "i"), ("leaf", 0.6, -0.6, 0.55, 30, "d")),
    "berry": (("disc", -0.38, 0.2, 0.5, 0, "d"), ("disc", 0.38, 0.25, 0.5, 0, "s"), ("disc", 0, -0.2, 0.5, 0, "s"),
              ("disc", -0.16, -0.36, 0.13, 0, "w"), ("disc", 0.24, 0.08, 0.12, 0, "w"), ("leaf", 0.4, -0.72, 0.4, 60, "g"),
              ("leaf", -0.4, -0.72, 0.4, -60, "g")),
    "tomato": (("disc", 0, 0.1, 0.88, 0, "s"), ("disc", -0.3, -0.2, 0.2, 0, "w"), ("star", 0, -0.55, 0.5, 0, "g")),
    "bean": (("oval", -0.32, 0.1, 0.72, -25, "s"), ("leaf", -0.32, 0.1, 0.62, -18, "i"), ("oval", 0.4, -0.05, 0.66, 30, "d"),
             ("leaf", 0.4, -0.05, 0.55, 24, "i")),
    "flower": (("leaf", -0.55, 0.7, 0.5, -60, "g"), ("leaf", 0.55, 0.7, 0.5, 60, "g"), ("flower", 0, 0, 0.9, 0, "s"),
               ("disc", 0, 0, 0.3, 0, "w"), ("disc", 0, 0, 0.2, 0, "d")),
    "grape": tuple(("disc", (j - i / 2) * 0.5, 0.75 - (2 - i) * 0.0 - i * 0.42, 0.27, 0, "sd"[(i + j) % 2])
                   for i in range(4) for j in range(i + 1)) + (("leaf", 0.3, -0.9, 0.4, 70, "g"),),
    "leaf": (("leaf", 0, -0.15, 0.85, 0, "g"), ("leaf", -0.5, 0.2, 0.7, -45, "s"), ("leaf", 0.5, 0.2, 0.7, 45, "s")),
    "comb": (("hexagon", -0.45, -0.3, 0.48, 0, "s"), ("hexagon", 0.45, -0.3, 0.48, 0, "d"), ("hexagon", 0, 0.48, 0.48, 0, "s"),
             ("drop", 0.62, 0.6, 0.36, 0, "s")),
    "fish": (("drop", 0.7, -0.55, 0.18, 0, "s"), ("fish", 0, 0, 1.1, 0, "i"), ("fish", 0.1, 0.03, 0.7, 0, "s"),
             ("disc", 0.62, -0.14, 0.09, 0, "w")),
    "sun": (("sun", 0, 0, 1, 0, "s"), ("oval", 0, 0, 0.62, 60, "w"), ("oval", 0.05, 0.05, 0.5, 60, "d")),
    "cone": (("cone", 0, 0.05, 0.9, 0, "k"), ("disc", -0.28, -0.3, 0.36, 0, "s"), ("disc", 0.28, -0.3, 0.36, 0, "d"),
             ("disc", 0, -0.65, 0.34, 0, "w"), ("disc", 0.05, -0.98, 0.12, 0, "i")),
    "biscuit": (("sun", 0, 0, 0.95, 6, "d"), ("disc", 0, 0, 0.78, 0, "s")) + tuple(
        ("disc", 0.42 * math.sin(k), 0.42 * math.cos(k), 0.11, 0, "k") for k in range(7)),
    "chili": (("moon", 0, 0, 0.8, -70, "s"), ("leaf", 0.45, -0.65, 0.35, 30, "g"), ("moon", -0.4, 0.3, 0.6, -50, "g")),
    "bolt": (("disc", 0, 0, 0.95, 0, "i"), ("bolt", 0, 0, 0.85, 0, "s")),
    "wheat": tuple(("leaf", side * 0.27, 0.65 - k * 0.38, 0.33, side * 38, "sd"[k % 2]) for k in range(4)
                   for side in (-1, 1)) + (("leaf", 0, -0.85, 0.33, 0, "s"),),
    "mountain": (("disc", 0.35, -0.35, 0.42, 0, "w"), ("mountain", 0, 0, 1, 0, "i"), ("mountain", -0.25, -0.33, 0.3, 0, "w"),
                 ("mountain", 0.45, 0.4, 0.5, 0, "s")),
    "drop": (("drop", 0, -0.1, 0.85, 0, "s"), ("drop", -0.12, 0.08, 0.5, 0, "w"), ("crown", 0, 0.75, 0.5, 0, "i")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Detail:
    """What sets one variant of a kind apart from the others; number is unique among them."""

    emblem: str
    corner: int
    stripes: int
    word: str
    number: int
    accent: Colour
    tint: int


@dataclass(frozen=True, slots=True)
class Pose:
    """A product as the camera sees it: angles in radians, pixels per drawn pixel, x and y of its foot, light (3)."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    x: float
    y: float
    light: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Product:
    """A drawn product: size in pixels (width, height, depth) and either its box faces or its curved surface."""

    width: float
    height: float
    depth: float
    gloss: float
    sides: tuple[Image.Image, ...] = ()
    skin: NDArray[np.uint32] | None = None  # RGBA, packed; all around for a solid of revolution
    slope: tuple[Floats, ...] = ()  # the surface's direction x, y, z at each pixel
    radius: Floats | None = None  # solid of revolution: radius at each row


def _rgb(colour: str | Colour, towards: str | Colour = "#000", share: float = 0) -> Colour:
    """A colour mixed with share of another one."""
    one = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    two = ImageColor.getrgb(towards) if isinstance(towards, str) else towards
    return (round(one[0] + (two[0] - one[0]) * share), round(one[1] + (two[1] - one[1]) * share),
            round(one[2] + (two[2] - one[2]) * share))  # fmt: skip


def _locate(class_index: int) -> tuple[Kind, int]:
    """Kind and variant number (from 0) of a class; raises DataError if the index is negative."""
    if class_index < 0:
        raise DataError(f"class_index must be 0 or more, not {class_index}")
    turn, place = divmod(class_index, len(KINDS) * VARIANTS)
    kind, variant = divmod(place, VARIANTS)
    return KINDS[kind], turn * VARIANTS + variant


def _detail(kind: Kind, variant: int) -> Detail:
    """The details of a variant; neighbouring variants differ in all of them."""
    v = variant + 5 * KINDS.index(kind)
    accent = _rgb(ACCENTS[v * 3 % len(ACCENTS)], "#888", 0.12 * (v // 8 % 3))
    return Detail(EMBLEMS[v * 5 % len(EMBLEMS)], v % 2, 1 + v % 4, WORDS[v * 7 % len(WORDS)], 11 + 7 * variant, accent, v % 3)


def label_path(class_index: int) -> tuple[str, str, str]:
    """Group, kind and variant of a class, such as ("bottles", "juice-bottle", "juice-bottle-03")."""
    kind, variant = _locate(class_index)
    return kind.group, kind.name, f"{kind.name}-{variant + 1:02d}"


def _blot(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, turn: float, fill: Colour) -> None:
    """Fills a shape of radius r pixels round (x, y), turned by degrees."""
    a = math.radians(turn)
    points = SHAPES[shape] @ np.array(((math.cos(a), math.sin(a)), (-math.sin(a), math.cos(a))), np.float32) * r + (x, y)
    draw.polygon([(float(px), float(py)) for px, py in points], fill=fill)


@lru_cache(maxsize=256)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _write(draw: ImageDraw.ImageDraw, text: str, x: float, y: float, w: float, h: float, fill: Colour, bold: float) -> None:
    """Writes text round (x, y), as large as fits w x h pixels; bold is the stroke as a share of the size."""
    size = max(6, int(min(h, w / max(_font(100).getlength(text) / 100 + 2 * bold, 0.1))))
    draw.text((x, y), text, fill=fill, font=_font(size), anchor="mm", stroke_width=size * bold)


def _pattern(draw: ImageDraw.ImageDraw, name: str, w: int, h: int, ink: Colour, soft: Colour) -> None:
    """Draws a front's background pattern."""
    m = min(w, h)
    if name == "rays":
        for k in range(0, 24, 2):
            a, b = (2 * math.pi * (k + s) / 24 for s in (0, 1))
            centre, far = (w / 2, h * 0.5), w + h
            draw.polygon([centre, (centre[0] + far * math.cos(a), centre[1] + far * math.sin(a)),
                          (centre[0] + far * math.cos(b), centre[1] + far * math.sin(b))], fill=soft)  # fmt: skip
    elif name == "wave":
        for level, fill in ((0.6, soft), (0.72, ink)):
            xs = np.linspace(0, w, 40)
            ys = h * level + 0.06 * h * np.sin(xs / w * 5 + level * 20)
            draw.polygon([*zip(xs.tolist(), ys.tolist(), strict=True), (w, h), (0, h)], fill=fill)
    elif name == "frame":
        draw.rectangle((0.035 * m, 0.035 * m, w - 0.035 * m, h - 0.035 * m), outline=ink, width=max(1, m // 40))
        draw.rectangle((0.075 * m, 0.075 * m, w - 0.075 * m, h - 0.075 * m), outline=soft, width=max(1, m // 60))
    elif name == "split":
        draw.polygon([(0, 0), (w, 0), (w, h * 0.3), (0, h * 0.42)], fill=ink)
    elif name == "stripe":
        for k in range(0, 14, 2):
            draw.rectangle((w * k / 14, 0, w * (k + 1) / 14, h), fill=soft)
    elif name == "dots":
        for k in range(80):
            x, y = w * (k % 8 + 0.5 * (k // 8 % 2)) / 7.5, h * (k // 8 + 0.5) / 10
            draw.ellipse((x - m / 40, y - m / 40, x + m / 40, y + m / 40), fill=soft)
    elif name == "diagonal":
        draw.polygon([(0, h), (0, h * 0.55), (w * 0.75, 0), (w, 0), (w, h * 0.15), (w * 0.15, h)], fill=soft)


def _front(kind: Kind, detail: Detail, w: int, h: int, see_through: bool = False) -> Image.Image:
    """The printed front, w x h pixels RGB, drawn at three times that size."""
    size = (w * 3, h * 3)
    w, h = size
    m = min(w, h)
    paper = _rgb(kind.colours[2], detail.accent, (0, 0.1, 0.18)[detail.tint])
    ink, spot = _rgb(kind.colours[3]), _rgb(kind.colours[4])
    white, dark = _rgb("#fffdf6"), _rgb("#2a211c")
    shade = sum(paper) / 3
    art = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(art)
    _pattern(draw, kind.pattern, w, h, ink, _rgb(paper, spot, 0.35))
    brand, mx, my, mr, word = LAYOUTS[kind.layout]
    plate = kind.layout in (0, 2) or kind.pattern in ("rays", "stripe", "diagonal")
    if plate:
        draw.rounded_rectangle((0.07 * w, (brand - 0.095) * h, 0.93 * w, (brand + 0.095) * h), 0.03 * m, fill=ink)
    over = paper if plate or (kind.pattern == "split" and brand < 0.3) else ink
    _write(draw, kind.brand, w / 2, brand * h, 0.78 * w, 0.17 * h, over, 0.04)
    if kind.pattern in ("rays", "stripe", "wave", "dots", "diagonal"):
        r = mr * m * 1.3
        draw.ellipse((mx * w - r, my * h - r, mx * w + r, my * h + r), fill=white, outline=spot, width=max(1, m // 70))
    tones = {"i": ink, "p": paper, "s": spot, "a": detail.accent, "g": _rgb("#4f9a3c"), "k": _rgb("#8a5a30"),
             "w": _rgb(spot, "#fff", 0.8), "d": _rgb(spot, "#301008", 0.25)}  # fmt: skip
    for shape, x, y, r, turn, tone in MOTIFS[kind.motif]:
        _blot(draw, shape, mx * w + x * mr * m, my * h + y * mr * m, r * mr * m, turn, tones[tone])
    # The details, the same on every kind: they are all that tells its variants apart.
    light = shade < 120 or (kind.pattern == "wave" and word > 0.66)
    _write(draw, detail.word, w / 2, word * h, 0.5 * w, 0.1 * h, white if light else dark, 0.02)
    ex = (0.83 if detail.corner or mx < 0.4 else 0.17) * w
    ey = (0.36 if brand < 0.3 else 0.2) * h
    _disc = (ex - 0.1 * m, ey - 0.1 * m, ex + 0.1 * m, ey + 0.1 * m)
    draw.ellipse(_disc, fill=white, outline=detail.accent, width=max(1, m // 80))
    _blot(draw, detail.emblem, ex, ey, 0.07 * m, 0, detail.accent)
    nx = (0.17 if ex > w / 2 and mx > 0.4 else 0.83) * w
    _write(draw, f"{detail.number}", nx, (0.66 if mx > 0.4 else 0.62) * h, 0.2 * w, 0.1 * h, detail.accent, 0.04)
    for k in range(detail.stripes):
        y = h * (0.965 - 0.032 * k)
        draw.rectangle((0, y - 0.009 * h, w, y + 0.009 * h), fill=detail.accent)
    return art.reduce(3)


def _grid(seed: int, height: int, width: int, cells: tuple[int, ...], tall: int = 1) -> Floats:
    """Smooth noise height x width in about -1..1: random grids of the given numbers of cells, finer ones weaker."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for k, n in enumerate(cells):
        cell = Image.fromarray(rng.uniform(-1, 1, (max(2, n * tall), n)).astype(np.float32))
        total += np.asarray(cell.resize((width, height), Image.Resampling.BICUBIC)) / 1.6**k
    return total


def _pack(picture: Image.Image) -> NDArray[np.uint32]:
    """A picture's pixels, one number each (height x width)."""
    pixels: NDArray[np.uint32] = np.asarray(picture.convert("RGBA")).view(np.uint32)[..., 0]
    return pixels


def _solid(kind: Kind, detail: Detail, unit: float) -> Product:
    """A solid of revolution that fits a square of `unit` pixels; its skin goes once around."""
    cap, cap_r, outline, (top, bottom, around) = SOLIDS[kind.shape]
    widest = max(cap_r, *(r for _, r in outline))
    h = round(unit / max(1, 1.7 * widest))
    rows = (np.arange(h) + 0.5) / h
    radius = np.interp(rows, [y for y, _ in outline], [r for _, r in outline])
    radius = np.convolve(np.pad(radius, 4, mode="edge"), np.ones(9) / 9, "valid")
    radius = np.where(rows < cap, cap_r, radius) * h
    w = round(2 * math.pi * widest * h)
    lid = _rgb(kind.colours[1], detail.accent, 0.25 if detail.tint == 1 else 0.05)
    body = _rgb(kind.colours[0])
    skin = Image.new("RGB", (w, h), body)
    draw = ImageDraw.Draw(skin)
    draw.rectangle((0, 0, w, int((cap + 0.07) * h)), fill=_rgb(body, "#fff", 0.35))
    dice = random.Random(kind.name)
    for _ in range(70 if kind.motif in ("berry", "chili", "orange") else 0):
        x, y, r = dice.random() * w, dice.uniform(cap + 0.12, 1) * h, dice.uniform(0.02, 0.05) * h
        draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=_rgb(body, kind.colours[4], dice.uniform(0.1, 0.6)))
    draw.rectangle((0, 0, w, int(cap * h) - 1), fill=lid)
    for x in range(0, w, max(4, w // 70) if cap > 0.05 else w):
        draw.line((x, 2, x, int(cap * h) - 2), fill=_rgb(lid, "#000", 0.2))
    front = _front(kind, detail, round(w * min(0.36, around)), round((bottom - top) * h))
    tint = front.getpixel((front.width // 2, front.height - front.height // 40 - 2)) if around == 1 else None
    if around == 1:
        band = front.resize((w, front.height)).crop((0, 0, 1, front.height)).resize((w, front.height))
        skin.paste(band, (0, round(top * h)))
        for k in range(9):
            y = round((top + (bottom - top) * (0.3 + 0.05 * k)) * h)
            draw.line((w * 0.04, y, w * (0.2 if k % 3 else 0.16), y), fill=_rgb(kind.colours[3]))
            draw.line((w * (0.84 + k / 90), h * 0.4, w * (0.84 + k / 90), h * 0.55), fill=_rgb("#222"))
    del tint
    skin.paste(front, ((w - front.width) // 2, round(top * h)))
    pad = math.ceil(0.4 * widest * h) + 2
    tall = np.concatenate([np.full(pad, radius[0]), radius, np.full(pad, radius[-1])]).astype(np.float32)[:, None]
    across = np.arange(-math.ceil(widest * h) - 1, math.ceil(widest * h) + 1, dtype=np.float32)[None] + 0.5
    u = np.clip(across / tall, -1, 1)
    cover = np.clip(tall - np.abs(across) + 0.5, 0, 1)
    return Product(2 * widest * h, h, 2 * widest * h, kind.gloss, skin=_pack(skin), radius=tall,
                   slope=(u, np.sqrt(1 - u * u), cover, np.arcsin(u) * (w / (2 * math.pi)) + w / 2))  # fmt: skip


def _box(kind: Kind, detail: Detail, unit: float) -> Product:
    """A box that fits a square of `unit` pixels: front, side and top, each with a clear border of one pixel."""
    wide, deep = BOXES[kind.shape]
    h = round(unit / max(1, wide * 0.9))
    w, d = round(wide * h), round(deep * h)
    body, ink = _rgb(kind.colours[0], kind.colours[2], 0.3), _rgb(kind.colours[3])
    side = Image.new("RGB", (d, h), body)
    draw = ImageDraw.Draw(side)
    draw.rectangle((d * 0.12, h * 0.3, d * 0.88, h * 0.7), fill=_rgb("#fffdf4"), outline=ink)
    for k in range(10):
        draw.line((d * 0.18, h * (0.34 + k * 0.035), d * (0.8 if k % 3 else 0.6), h * (0.34 + k * 0.035)), fill=_rgb("#666"))
    _write(draw, kind.brand, d / 2, h * 0.16, d * 0.8, h * 0.12, ink, 0.03)
    for k in range(detail.stripes):
        draw.rectangle((0, h * (0.956 - 0.032 * k), d, h * (0.974 - 0.032 * k)), fill=detail.accent)
    top = Image.new("RGB", (w, d), _rgb(body, "#fff", 0.15))
    draw = ImageDraw.Draw(top)
    draw.line((0, d / 2, w, d / 2), fill=_rgb(body, "#000", 0.25), width=max(1, d // 40))
    _write(draw, kind.brand, w / 2, d * 0.76, w * 0.6, d * 0.3, ink, 0.03)
    sides = []
    for face in (_front(kind, detail, w, h), side, top):
        sides.append(Image.new("RGBA", (face.width + 2, face.height + 2), (*face.resize((1, 1)).getpixel((0, 0)), 0)))
        sides[-1].paste(face, (1, 1))
    return Product(w, h, d, kind.gloss, sides=tuple(sides))


def _bag(kind: Kind, detail: Detail, unit: float) -> Product:
    """A pillow bag `unit` pixels high with crimped ends and wrinkles."""
    wide, waist = BAGS[kind.shape]
    h, w = round(unit), round(wide * unit)
    y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w * 2 - 1, indexing="ij")
    half = 1 - waist - waist * np.cos(2 * np.pi * y) * -1 - 0.01 * _grid(3, h, w, (3,), 3)
    zigzag = 0.012 + 0.006 * np.abs((x * 16) % 2 - 1)
    cover = np.clip((half - np.abs(x)) * w / 2, 0, 1) * np.clip((np.minimum(y, 1 - y) - zigzag) * h, 0, 1)
    bulge = np.clip(1 - np.abs(x) ** 2.5, 0, 1) * np.sin(np.pi * np.clip(y, 0.05, 0.95)) ** 0.6
    ends = np.clip(np.abs(y - 0.5) * 2.6 - 0.5, 0, 1)
    crumple = _grid(len(kind.name), h, w, (4, 8, 16), 1) * 0.02 + _grid(5, h, w, (14, 26), 1) * 0.02 * ends
    gy, gx = np.gradient((0.28 * bulge + crumple) * h)
    crimp = 0.5 * np.sin(y * h * 1.6) * (np.minimum(y, 1 - y) < 0.075)
    norm = np.sqrt(gx**2 + (gy + crimp) ** 2 + 1)
    art = _front(kind, detail, w, round(0.86 * h))
    whole = Image.new("RGBA", (w, h), (*_rgb(kind.colours[0]), 255))
    whole.paste(art, (0, round(0.07 * h)))
    whole.putalpha(Image.fromarray((cover * 255).astype(np.uint8)))
    slope = tuple(a.astype(np.float32) for a in (-gx / norm, -(gy + crimp) / norm, 1 / norm))
    return Product(w, h, 0.3 * w, kind.gloss, skin=_pack(whole), slope=slope)


@lru_cache(maxsize=64)
def _product(class_index: int, size: int) -> Product:
    """The drawn product of a class for photographs whose shorter side is `size` pixels."""
    kind, variant = _locate(class_index)
    make = _solid if kind.shape in SOLIDS else _box if kind.shape in BOXES else _bag
    return make(kind, _detail(kind, variant), 0.94 * size)


def _project(points: Floats, pose: Pose, far: float) -> Floats:
    """Points (n x 3; x right, y down, z away, from the foot) on the photograph (n x 2); far is the camera's distance."""
    cy, sy, cp, sp = math.cos(pose.yaw), math.sin(pose.yaw), math.cos(pose.pitch), math.sin(pose.pitch)
    x, z = points[:, 0] * cy + points[:, 2] * sy, points[:, 2] * cy - points[:, 0] * sy
    y, z = points[:, 1] * cp - z * sp, z * cp + points[:, 1] * sp
    near = pose.scale * far / (far + z)
    x, y = x * near, y * near
    cr, sr = math.cos(pose.roll), math.sin(pose.roll)
    return np.stack([x * cr - y * sr + pose.x, x * sr + y * cr + pose.y], 1)


def _relit(pixels: NDArray[np.uint32], slope: tuple[Floats, ...], cover: Floats | None, product: Product,
           light: tuple[float, float, float]) -> Image.Image:  # fmt: skip
    """Packed pixels lit by a light from a direction, as an RGBA picture."""
    lx, ly, lz = light
    nx, ny, nz = slope
    lit = 0.5 + 0.6 * np.maximum(nx * lx + ny * ly + nz * lz, 0)
    length = math.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)
    shine = np.maximum((nx * lx + ny * ly + nz * (lz + 1)) / length, 0)
    for _ in range(5):
        shine = shine * shine
    rgba = pixels.view(np.uint8).reshape(*pixels.shape, 4)
    out = np.empty(rgba.shape, np.uint8)
    out[..., :3] = np.minimum(rgba[..., :3] * lit[..., None] + (shine * (170 * product.gloss))[..., None], 255)
    out[..., 3] = rgba[..., 3] if cover is None else cover * 255
    return Image.fromarray(out)


def _turned(product: Product, skin: NDArray[np.uint32], pose: Pose) -> Image.Image:
    """A solid of revolution turned by pose.yaw and seen from pose.pitch above."""
    assert product.radius is not None
    u, cos, cover, column = product.slope
    h, w = skin.shape
    pad = (u.shape[0] - h) // 2
    tilt = math.sin(pose.pitch)
    rise = (np.arange(u.shape[0], dtype=np.float32) - pad)[:, None]
    row = rise - tilt * product.radius * cos
    columns = (column + pose.yaw * w / (2 * math.pi)).astype(np.int32) % w
    pixels = skin.ravel()[np.clip(row.astype(np.int32), 0, h - 1) * w + columns]
    cover = cover * np.clip(h - row, 0, 1)
    ny: Floats = np.zeros_like(u)
    if tilt > 0.02:
        across = np.sqrt(u**2 + (rise / (tilt * product.radius)) ** 2)
        lid = (row < 0) & (across < 1)
        edge = np.where(across > 0.9, 0.75, np.where(across > 0.8, 1.12, 1.0))[lid]
        plain = np.array([int(v) for v in skin[1:2, 0].view(np.uint8)[:3]], np.float32)
        top = np.full((edge.size, 4), 255, np.uint8)
        top[:, :3] = np.minimum(plain[None] * edge[:, None] + 12, 255)
        pixels[lid] = top.view(np.uint32)[:, 0]
        cover = np.where((row < 0) & ~lid, 0, cover)
        u, ny, cos = np.where(lid, 0, u), np.where(lid, -0.8, ny), np.where(lid, 0.6, cos)
    else:
        cover = np.where(row < 0, 0, cover)
    return _relit(pixels, (u, ny, cos), cover.astype(np.float32), product, pose.light)


def _faces(product: Product, pose: Pose) -> Faces:
    """The product's visible faces, lit, with the corners (4 x 2; clockwise from top left) where they go."""
    w, h, d = product.width / 2, product.height, product.depth / 2
    far = 4 * max(2 * w, h)

    def quad(*points: tuple[float, float, float], at: Pose = pose) -> Floats:
        return _project(np.array(points, np.float32), at, far)

    if product.skin is not None and product.radius is not None:
        picture = _turned(product, product.skin, pose)
        x, y = picture.width / 2, (picture.height - h) / 2
        corners = quad((-x, -h - y, 0), (x, -h - y, 0), (x, y, 0), (-x, y, 0), at=replace(pose, yaw=0))
        return [(picture, corners)]
    if product.skin is not None:
        picture = _relit(product.skin, product.slope, None, product, pose.light)
        return [(picture, quad((-w, -h, 0), (w, -h, 0), (w, 0, 0), (-w, 0, 0)))]
    lx, ly, lz = pose.light
    s, z = (1, -1) if pose.yaw > 0 else (-1, 1)
    ends = ((w, -d), (w, d)) if pose.yaw > 0 else ((-w, d), (-w, -d))
    (x0, z0), (x1, z1) = ends
    del z
    turn = abs(math.sin(pose.yaw))
    found: Faces = []
    for face, corners, facing in (
        (2, quad((-w, -h, d), (w, -h, d), (w, -h, -d), (-w, -h, -d)), -ly + 0.2),
        (1, quad((x0, -h, z0), (x1, -h, z1), (x1, 0, z1), (x0, 0, z0)), lz * turn + lx * s * math.cos(pose.yaw)),
        (0, quad((-w, -h, -d), (w, -h, -d), (w, 0, -d), (-w, 0, -d)), lz * math.cos(pose.yaw) - lx * s * turn),
    ):
        (ax, ay), (bx, by), _, (ex, ey) = corners.tolist()
        if (bx - ax) * (ey - ay) - (by - ay) * (ex - ax) > 4:
            lit = 0.55 + 0.55 * max(0.0, facing)
            ramp = [min(255, round(v * lit)) for v in range(256)] * 3 + list(range(256))
            found.append((product.sides[face].point(ramp), corners))
    return found


def _put(canvas: Image.Image, faces: Faces) -> None:
    """Draws faces on the photograph, each stretched to its corners."""
    for picture, quad in faces:
        edge = 1 if len(faces) > 1 else 0
        left, top = (max(0, math.floor(v) - 1) for v in quad.min(0))
        right, bottom = (min(limit, math.ceil(v) + 1) for limit, v in zip(canvas.size, quad.max(0), strict=True))
        if right - left < 2 or bottom - top < 2:
            continue
        w, h = picture.size
        target = ((edge, edge), (w - edge, edge), (w - edge, h - edge), (edge, h - edge))
        rows, goal = [], []
        for (x, y), (u, v) in zip((quad - (left, top)).tolist(), target, strict=True):
            rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
            goal += [u, v]
        terms = np.linalg.solve(np.array(rows, float), np.array(goal, float)).tolist()
        patch = picture.transform((right - left, bottom - top), Image.Transform.PERSPECTIVE, terms, SMOOTH)
        canvas.paste(patch, (left, top), patch)


@lru_cache(maxsize=2)
def _textures(size: int) -> tuple[Image.Image, ...]:
    """Grounds and walls, RGB squares of about 2.2 x size: wood, planks, linen, marble, tiles, check, concrete, plain."""
    n = round(2.2 * size)
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / size
    fine = _grid(1, n, n, (40, 90, 200))
    cloud = _grid(2, n, n, (4, 8, 16, 40))
    streak = _grid(4, n, n, (3, 7), 30)
    plank = np.floor(y * 4)
    shift = np.sin(plank * 12.9) * 0.12
    seams = 1 - 0.55 * (np.abs((y * 4) % 1 - 0.5) > 0.485)
    weave = np.sin(x * 260) * np.sin(y * 260)
    tile = (np.abs((x * 3) % 1 - 0.5) > 0.48) | (np.abs((y * 3) % 1 - 0.5) > 0.48)
    check = ((x * 6) % 1 > 0.5).astype(np.float32) + ((y * 6) % 1 > 0.5)
    brick = (np.abs((y * 7) % 1 - 0.5) > 0.44) | (np.abs((x * 3 + 0.5 * (np.floor(y * 7) % 2)) % 1 - 0.5) > 0.475)
    tones = (
        ("#b98a58", 1 + 0.16 * streak + 0.03 * fine),
        ("#8b6a4a", (1 + 0.14 * streak + shift + 0.03 * fine) * seams),
        ("#cfc3ae", 1 + 0.05 * weave + 0.06 * fine + 0.03 * cloud),
        ("#dcdad6", 1 + 0.05 * cloud - 0.22 * np.exp(-((cloud * 6) ** 2)) + 0.02 * fine),
        ("#c9d6d6", np.where(tile, 0.78, 1 + 0.03 * np.sin(np.floor(x * 3) * 7 + np.floor(y * 3) * 5)) + 0.02 * fine),
        ("#e8e4dc", 1 - 0.16 * check + 0.03 * weave),
        ("#9d9c98", 1 + 0.1 * cloud + 0.07 * fine),
        ("#d8d4cc", 1 + 0.02 * cloud),
        ("#b0785c", np.where(brick, 1.25, 1 + 0.1 * fine + 0.1 * np.sin(np.floor(x * 3) * 9 + np.floor(y * 7) * 4))),
    )
    return tuple(
        Image.fromarray(np.clip(np.array(_rgb(tone), np.float32) * pattern[..., None], 0, 255).astype(np.uint8))
        for tone, pattern in tones
    )


@lru_cache(maxsize=2)
def _grains(size: int) -> tuple[Image.Image, ...]:
    """Sensor noise round 128, weak to strong, RGB squares of 3 x size."""
    n = 3 * size
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 1, (n, n, 1)) + 0.5 * rng.normal(0, 1, (n, n, 3))
    return tuple(Image.fromarray(np.clip(128 + noise * s, 0, 255).astype(np.uint8)) for s in (1.5, 3, 5, 8))


@lru_cache(maxsize=2)
def _blob(size: int) -> Image.Image:
    """A soft round spot, L, size x size."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1) * 2 - 1
    return Image.fromarray((255 * np.clip(1 - (x * x + y * y), 0, 1) ** 1.5).astype(np.uint8))


@lru_cache(maxsize=64)
def _other(number: int, size: int) -> Image.Image:
    """Another product for the background, RGBA, size pixels high at most, a little out of focus."""
    product = _product(OTHERS + number * VARIANTS, size)
    pose = Pose((number % 5 - 2) * 0.2, 0.12, 0, 1, size, 1.6 * size, (-0.4, -0.5, 0.75))
    canvas = Image.new("RGBA", (2 * size, 2 * size), (128, 128, 128, 0))
    for picture, quad in _faces(product, pose):
        layer = Image.new("RGBA", canvas.size, (128, 128, 128, 0))
        _put(layer, [(picture, quad)])
        canvas.alpha_composite(layer)
    return canvas.crop(canvas.getbbox()).filter(ImageFilter.BoxBlur(size / 300))

"""Products drawn with Pillow and "photographed": offline demo data, test fixture and source of the scale tests.

Three levels of classes: a group (bottles), a kind (juice-bottle: shape and main design) and a variant, which differs from
its kind's other variants only in details: emblem, stripes, a word, a number, the lid's colour, the label's tint. A product's
look depends on its class index only, a photograph on (seed, class index, image index) only.
"""

import math
import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont
from rich.progress import Progress

from deeprank.errors import DataError

Floats = NDArray[np.floating]
Pixels = NDArray[np.uint32]  # RGBA, packed: height x width
Colour = tuple[int, int, int]
Place = tuple[float, float]  # x, y in pixels, or width, height
Vector = tuple[float, float, float]
Faces = list[tuple[Image.Image, int, Floats]]  # RGBA pictures, their border in pixels, the corners (4 x 2, clockwise) where they go
Job = tuple[Path, int, range, int, int]  # folder, class index, image indices, seed, size

VARIANTS = 3  # variants of a kind that follow each other in class order
POOL_FROM = 500  # photographs above which starting processes pays
CHUNK = 50  # photographs that a process draws at a time
OTHERS = 10_008  # class index of the first product used as clutter: a first variant, far beyond the labelled ones
LEVELS = np.arange(256)
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


def _kinds(table: str) -> tuple[Kind, ...]:
    """Return the kinds of a table: group, name, shape, five colours, brand, motif, pattern, layout, gloss (0..1) a line."""
    found = []
    for row in table.strip().splitlines():
        group, name, shape, body, cap, paper, ink, spot, brand, motif, pattern, layout, gloss = row.split()
        colours = (f"#{body}", f"#{cap}", f"#{paper}", f"#{ink}", f"#{spot}")
        found.append(Kind(group, name, shape, colours, brand, motif, pattern, int(layout), float(gloss)))
    return tuple(found)


KINDS = _kinds("""
bottles juice-bottle flask f0972b 3c8c3f fff4dc d9541e f6a21e SUNNA orange rays 0 .7
boxes cereal-box tall e7b64a c98f28 fbe3a0 b3341f f3c04b Krispo bowl wave 1 .1
jars jam-jar jar 8e1630 e9dfd0 fffaf0 8e1f3d c22a4e Maribel berry frame 0 .6
tins soup-tin can b9bdc2 c9cdd2 f7efe0 b8261f e0452e Campo tomato split 2 .5
pouches coffee-pouch pouch 3b2418 2c1a10 4a2d1e e9cf9c c58b45 MOKKA bean frame 1 .5
cups yogurt-cup cup f6f7f5 dfe5ea f4f8fb 2b6fae e56b8c Almi flower wave 0 .4
bottles wine-bottle wine 1f2d20 5a1423 f3ead6 3a2a20 7c1f33 Monteval grape frame 3 .8
boxes tea-box wide 2f6b4a 24543a d8e6c8 1f5a3c 8cb56a Ceylona leaf stripe 3 .1
jars honey-jar squat d98a16 f0c24a fff3cf 7a4a10 e8a41f Beehall comb dots 1 .7
tins fish-tin flat c3c8cc d3d6d9 dcecf4 1d4e7c e2b23c Atlantis fish wave 2 .7
pouches crisps-bag bag d42b2b b32020 e23a30 fff3d0 f5c430 Chipsy sun rays 1 .8
cups ice-cream-tub tub f3d7df 8e5a3c fbe7ec 7a3b52 e58aa5 Gelina cone dots 2 .3
bottles ketchup-bottle squeeze b81f1c f4f1ea d3291f fff1d6 ec5a34 Rosso tomato dots 1 .8
boxes biscuit-box long 2b4f8e 203f74 e7eefb 23468a d9a050 Biskwi biscuit diagonal 2 .1
jars pickle-jar jar 7f9a3a 4f7a35 f4f6df 3f6b2c a8bf4d Gurkin chili stripe 1 .6
tins soda-can soda c8ccd0 d4d7da 1e8fb3 f4fbff f2d43d ZIPP bolt diagonal 1 .8
pouches rice-pouch pouch efe7d2 dccfae f5efdf 5d6b2a c2a14a Basmara wheat split 0 .2
cups noodle-cup cup e4502e d4d7da f05a33 fff4d8 f7c63a Ramenko bowl rays 1 .2
bottles water-bottle flask a9d4e8 2a6fb5 e9f6fc 1f5fa6 6db7dd Fonta mountain wave 2 .9
boxes milk-carton carton f3f6f8 d8e2ea eef5fb 1f63a8 6fb2e0 Lattea drop split 0 .2
jars spice-jar slim a3521d 2a2a2a f6e7c8 6b2f12 d7792b Safari chili frame 2 .6
tins coffee-tin can 8c2a22 d6b25a 9c2f26 f6e2b4 d6b25a Torino bean plain 3 .5
pouches pasta-bag bag 27508f 1e4079 2f5fa8 fff3d8 f1c545 Pastello wheat stripe 0 .6
cups butter-tub tub f6e27a e3b92d fdf3b5 2f7d3c f2c12e Auenhof flower plain 2 .3
""")

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
    "flat": (0.08, 1.2, ((0.08, 1.18), (0.92, 1.18), (1, 1.2)), (0.12, 0.9, 1)),
    "cup": (0.04, 0.39, ((0.04, 0.37), (1, 0.28)), (0.1, 0.92, 1)),
    "tub": (0.14, 0.57, ((0.14, 0.54), (0.96, 0.47), (1, 0.45)), (0.2, 0.94, 1)),
}
BOXES = {"tall": (0.7, 0.24), "wide": (1.3, 0.7), "long": (1.75, 0.55), "carton": (0.46, 0.44)}  # width, depth
BAGS = {"pouch": (0.68, 0.05), "bag": (0.76, 0.03)}  # width, how much the waist is narrower
# Where things go on a front: brand's y, motif's x, y and radius, word's y; fractions of width, height, shorter side.
LAYOUTS = ((0.14, 0.5, 0.49, 0.24, 0.79), (0.27, 0.5, 0.62, 0.22, 0.1), (0.16, 0.3, 0.5, 0.25, 0.78), (0.52, 0.5, 0.25, 0.19, 0.68))
WORDS = ("classic", "mild", "extra", "light", "fresh", "natur", "gold", "bio", "pure", "rich", "family", "spicy", "sweet", "zero",
         "select", "farm", "finest", "tender", "royal")  # fmt: skip
ACCENTS = ["#d8432f", "#2f6fd0", "#3a9a4a", "#e6a91f", "#7d4bb0", "#1f9c9c", "#d65a94", "#5a4636"]
EMBLEMS = ["star", "heart", "leaf", "drop", "flower", "diamond", "crown", "moon", "sun", "bolt", "fish", "petals", "mountain"]
# Colours that tint walls and grounds: neutral, cream, sage, sky, clay, slate, sand, rose, mint.
TINTS = ["#fafafa", "#fffae6", "#dff7da", "#d8f2ff", "#ffdbc2", "#b8c7db", "#ffedc7", "#ffe6e6", "#d1faf0"]


def _shapes() -> dict[str, Floats]:
    """Return closed outlines (points x 2) within about -1..1, y pointing down."""
    t = np.linspace(0, 2 * np.pi, 61)[:-1]
    sin, cos, ten, many = np.sin(t), np.cos(t), np.arange(10), np.arange(28)

    def polar(radius: Floats, angle: Floats = t) -> Floats:
        return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1)

    def points(*values: float) -> Floats:
        return np.array(values).reshape(-1, 2)

    disc = polar(np.ones(60))
    return {
        "disc": disc,
        "oval": disc * (0.62, 1),
        "bowl": np.concatenate([disc[15:46], points(-0.55, -0.1, 0.55, -0.1)]),
        "moon": np.concatenate([disc[5:56], disc[52:8:-1] * 0.8 + (0, -0.32)]),
        "star": polar(np.where(ten % 2, 0.42, 1), ten * np.pi / 5),
        "sun": polar(np.where(many % 2, 0.68, 1), many * np.pi / 14),
        "hexagon": disc[::10],
        "flower": polar(0.72 + 0.28 * np.cos(6 * t)),
        "petals": polar(np.abs(np.cos(4 * t)) ** 0.4),
        "heart": np.stack([sin**3, (5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t) - 13 * cos) / 17], 1),
        "leaf": np.stack([0.5 * sin * np.abs(sin), -cos], 1),
        "drop": np.stack([0.85 * sin * np.abs(np.sin(t / 2)) ** 1.5, -cos], 1),
        "fish": np.stack([cos - sin**2 / 1.4142, 1.25 * cos * sin], 1),
        "diamond": points(0, -1, 0.7, 0, 0, 1, -0.7, 0),
        "bolt": points(0.2, -1, -0.6, 0.15, -0.05, 0.15, -0.25, 1, 0.6, -0.25, 0.05, -0.25, 0.45, -1),
        "crown": points(-1, -0.6, -0.45, 0, 0, -0.9, 0.45, 0, 1, -0.6, 0.8, 0.7, -0.8, 0.7),
        "mountain": points(-1, 0.8, -0.25, -0.7, 0.15, -0.05, 0.4, -0.4, 1, 0.8),
        "cone": points(-0.5, -0.2, 0.5, -0.2, 0, 1.1),
    }


SHAPES = _shapes()
Layer = tuple[str, float, float, float, float, str]  # of a motif: shape, x, y, size, turn in degrees, colour


def _layers(text: str) -> tuple[Layer, ...]:
    """Return a motif's layers; colours: i ink, s spot, d dark spot, w light spot, g green, k brown."""
    split = (layer.split() for layer in text.split(","))
    return tuple((shape, float(x), float(y), float(size), float(turn), tone) for shape, x, y, size, turn, tone in split)


MOTIFS = {
    name: _layers(text)
    for name, text in {
        "orange": "disc 0 .08 .9 0 s, disc 0 .08 .76 0 w, petals 0 .08 .72 0 s, leaf .42 -.86 .42 65 g",
        "bowl": "disc -.35 -.2 .2 0 k, disc .05 -.3 .24 0 s, disc .42 -.2 .2 0 k, bowl 0 0 .95 0 i, leaf .6 -.6 .55 30 d",
        "berry": (
            "disc -.38 .2 .5 0 d, disc .38 .25 .5 0 s, disc 0 -.2 .5 0 s, disc -.16 -.36 .13 0 w, disc .24 .08 .12 0 w, "
            "leaf .4 -.72 .4 60 g, leaf -.4 -.72 .4 -60 g"
        ),
        "tomato": "disc 0 .1 .88 0 s, disc -.3 -.2 .2 0 w, star 0 -.55 .5 0 g",
        "bean": "oval -.32 .1 .72 -25 s, leaf -.32 .1 .62 -18 i, oval .4 -.05 .66 30 d, leaf .4 -.05 .55 24 i",
        "flower": "leaf -.55 .7 .5 -60 g, leaf .55 .7 .5 60 g, flower 0 0 .9 0 s, disc 0 0 .3 0 w, disc 0 0 .2 0 d",
        "grape": (
            "disc 0 .75 .27 0 s, disc -.25 .33 .27 0 d, disc .25 .33 .27 0 s, disc -.5 -.09 .27 0 s, disc 0 -.09 .27 0 d, "
            "disc .5 -.09 .27 0 s, disc -.75 -.51 .27 0 d, disc -.25 -.51 .27 0 s, disc .25 -.51 .27 0 d, disc .75 -.51 .27 0 s, "
            "leaf .3 -.9 .4 70 g"
        ),
        "leaf": "leaf 0 -.15 .85 0 g, leaf -.5 .2 .7 -45 s, leaf .5 .2 .7 45 s",
        "comb": "hexagon -.45 -.3 .48 0 s, hexagon .45 -.3 .48 0 d, hexagon 0 .48 .48 0 s, drop .62 .6 .36 0 s",
        "fish": "drop .7 -.55 .18 0 s, fish 0 0 1.1 0 i, fish .1 .03 .7 0 s, disc .62 -.14 .09 0 w",
        "sun": "sun 0 0 1 0 s, oval 0 0 .62 60 w, oval .05 .05 .5 60 d",
        "cone": "cone 0 .05 .9 0 k, disc -.28 -.3 .36 0 s, disc .28 -.3 .36 0 d, disc 0 -.65 .34 0 w, disc .05 -.98 .12 0 i",
        "biscuit": (
            "sun 0 0 .95 6 d, disc 0 0 .78 0 s, disc 0 .42 .11 0 k, disc .35 .23 .11 0 k, disc .38 -.17 .11 0 k, "
            "disc .06 -.42 .11 0 k, disc -.32 -.27 .11 0 k, disc -.4 .12 .11 0 k, disc -.12 .4 .11 0 k"
        ),
        "chili": "moon 0 0 .8 -70 s, leaf .45 -.65 .35 30 g, moon -.4 .3 .6 -50 g",
        "bolt": "disc 0 0 .95 0 i, bolt 0 0 .85 0 s",
        "wheat": (
            "leaf -.27 .65 .33 -38 s, leaf .27 .65 .33 38 s, leaf -.27 .27 .33 -38 d, leaf .27 .27 .33 38 d, leaf -.27 -.11 .33 -38 s, "
            "leaf .27 -.11 .33 38 s, leaf -.27 -.49 .33 -38 d, leaf .27 -.49 .33 38 d, leaf 0 -.85 .33 0 s"
        ),
        "mountain": "disc .35 -.35 .42 0 w, mountain 0 0 1 0 i, mountain -.25 -.33 .3 0 w, mountain .45 .4 .5 0 s",
        "drop": "drop 0 -.1 .85 0 s, drop -.12 .08 .5 0 w, crown 0 .75 .5 0 i",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Detail:
    """What sets one variant of a kind apart from the others; number is unique among them."""

    emblem: str
    right: bool
    stripes: int
    word: str
    number: int
    accent: Colour
    tint: int


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


@dataclass(frozen=True, slots=True)
class Shot:
    """What is decided first about a photograph: its random numbers, scene, pixels and the height where things stand."""

    rng: random.Random
    scene: str  # table, shelf, flat or studio
    size: int
    w: int
    h: int
    foot: float


@dataclass(frozen=True, slots=True)
class Product:
    """A drawn product; sizes in pixels."""

    width: float
    height: float
    depth: float


@dataclass(frozen=True, slots=True)
class Box(Product):
    """A box: front, side and top (RGBA), each within a clear border of one pixel."""

    sides: tuple[Image.Image, ...]


@dataclass(frozen=True, slots=True)
class Bag(Product):
    """A bag seen from the front: its pixels and the direction x, y, z of its surface at each of them."""

    gloss: float
    skin: Pixels
    slope: tuple[Floats, Floats, Floats]


@dataclass(frozen=True, slots=True)
class Solid(Product):
    """A solid of revolution: its skin once around and, for every pixel of its picture, what lies there.

    `radius` has a row's radius; `across` runs from -1 (left) to 1, `facing` from 0 (rim) to 1; `cover` is the opacity and `column`
    the skin's column when the product is not turned. The picture is taller than the skin, for tilting.
    """

    gloss: float
    skin: Pixels
    radius: Floats
    across: Floats
    facing: Floats
    cover: Floats
    column: Floats


def _mix(colour: str | Colour, other: str | Colour = "#000", share: float = 0) -> Colour:
    """Return a colour mixed with a share (0..1) of another one."""
    one, two = (ImageColor.getrgb(c)[:3] if isinstance(c, str) else c for c in (colour, other))
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, two, strict=True))
    return red, green, blue


def _ramp(*gains: float) -> list[int]:
    """Return a lookup table for Image.point that multiplies each channel by its gain."""
    return [level for gain in gains for level in np.minimum(LEVELS * gain, 255).astype(int).tolist()]


def _locate(class_index: int) -> tuple[int, int]:
    """Return the place in KINDS and the variant number (from 0) of a class; raise DataError if the index is negative."""
    if class_index < 0:
        raise DataError(f"class_index must be 0 or more, not {class_index}")
    turn, place = divmod(class_index, len(KINDS) * VARIANTS)
    return place // VARIANTS, turn * VARIANTS + place % VARIANTS


def _detail(kind: int, variant: int) -> Detail:
    """Return the details of a variant; neighbouring variants differ in all of them."""
    v = variant + 5 * kind
    accent = _mix(ACCENTS[v * 3 % len(ACCENTS)], "#888", 0.12 * (v // 8 % 3))
    return Detail(EMBLEMS[v * 5 % len(EMBLEMS)], v % 2 == 1, 1 + v % 4, WORDS[v * 7 % len(WORDS)], 11 + 7 * variant, accent, v % 3)


def label_path(class_index: int) -> tuple[str, str, str]:
    """Return group, kind and variant of a class, such as ("bottles", "juice-bottle", "juice-bottle-03")."""
    place, variant = _locate(class_index)
    return KINDS[place].group, KINDS[place].name, f"{KINDS[place].name}-{variant + 1:02d}"


def _blot(draw: ImageDraw.ImageDraw, layer: Layer, place: Place, r: float, fill: Colour) -> None:
    """Fill one layer of a motif of radius r pixels round a place."""
    shape, dx, dy, size, turn, _ = layer
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    points = (SHAPES[shape] @ np.array(((cos, sin), (-sin, cos))) * size + (dx, dy)) * r + place
    draw.polygon([(px, py) for px, py in points.tolist()], fill=fill)


def _write(draw: ImageDraw.ImageDraw, text: str, place: Place, room: Place, fill: Colour) -> None:
    """Write text centred on a place, as large as fits the room (w, h)."""
    size = max(6, int(min(room[1], room[0] / (ImageFont.load_default(100).getlength(text) / 100 + 0.06))))
    draw.text(place, text, fill=fill, font=ImageFont.load_default(size), anchor="mm", stroke_width=size * 0.03)


def _pattern(draw: ImageDraw.ImageDraw, name: str, size: tuple[int, int], ink: Colour, soft: Colour) -> None:
    """Draw the background pattern of a front of the given size."""
    (w, h), m = size, min(size)
    if name == "rays":
        for k in range(0, 24, 2):
            ends = [(w / 2 + (w + h) * math.cos(a), h / 2 + (w + h) * math.sin(a)) for a in (math.pi * k / 12, math.pi * (k + 1) / 12)]
            draw.polygon([(w / 2, h / 2), *ends], fill=soft)
    elif name == "wave":
        for level, fill in ((0.6, soft), (0.72, ink)):
            crest = [(w * k / 40, h * (level + 0.06 * math.sin(k / 8 + level * 20))) for k in range(41)]
            draw.polygon([*crest, (w, h), (0, h)], fill=fill)
    elif name == "frame":
        for inset, colour in ((0.035, ink), (0.075, soft)):
            draw.rectangle((inset * m, inset * m, w - inset * m, h - inset * m), outline=colour, width=max(1, m // 45))
    elif name == "split":
        draw.polygon([(0, 0), (w, 0), (w, h * 0.3), (0, h * 0.42)], fill=ink)
    elif name == "stripe":
        for k in range(0, 14, 2):
            draw.rectangle((w * k / 14, 0, w * (k + 1) / 14, h), fill=soft)
    elif name == "dots":
        for k in range(80):
            draw.circle((w * (k % 8 + 0.5 * (k // 8 % 2)) / 7.5, h * (k // 8 + 0.5) / 10), m / 40, fill=soft)
    elif name == "diagonal":
        draw.polygon([(0, h), (0, h * 0.55), (w * 0.75, 0), (w, 0), (w, h * 0.15), (w * 0.15, h)], fill=soft)


def _front(kind: Kind, detail: Detail, width: int, height: int) -> Image.Image:
    """Return the printed front, RGB of width x height pixels, drawn at three times that size."""
    w, h = width * 3, height * 3
    m = min(w, h)
    paper, ink, spot = _mix(kind.colours[2], detail.accent, (0, 0.16, 0.32)[detail.tint]), _mix(kind.colours[3]), _mix(kind.colours[4])
    white, dark = _mix("#fffdf6"), _mix("#2a211c")
    art = Image.new("RGB", (w, h), paper)
    draw = ImageDraw.Draw(art)
    _pattern(draw, kind.pattern, (w, h), ink, _mix(paper, spot, 0.35))
    brand, mx, my, mr, word = LAYOUTS[kind.layout]
    busy = kind.pattern in ("rays", "stripe", "diagonal")
    plate = kind.layout in (0, 2) or busy
    if plate:
        draw.rounded_rectangle((0.07 * w, (brand - 0.095) * h, 0.93 * w, (brand + 0.095) * h), 0.03 * m, fill=ink)
    _write(draw, kind.brand, (w / 2, brand * h), (0.78 * w, 0.17 * h), paper if plate or (kind.pattern == "split" and brand < 0.3) else ink)
    x, y, r = mx * w, my * h, mr * m
    if busy or kind.pattern in ("wave", "dots"):
        draw.circle((x, y), 1.3 * r, fill=white, outline=spot, width=max(1, m // 70))
    tones = {
        "i": ink,
        "s": spot,
        "d": _mix(spot, "#301008", 0.25),
        "w": _mix(spot, "#fff", 0.8),
        "g": _mix("#4f9a3c"),
        "k": _mix("#8a5a30"),
    }
    for layer in MOTIFS[kind.motif]:
        _blot(draw, layer, (x, y), r, tones[layer[-1]])
    # From here on the details, which are all that tells the variants of a kind apart.
    light = sum(paper) < 360 or (kind.pattern == "wave" and word > 0.66)
    _write(draw, detail.word, (w / 2, word * h), (0.55 * w, 0.11 * h), white if light else dark)
    right = detail.right or mx < 0.4
    x, y = (0.83 if right else 0.17) * w, (0.37 if brand < 0.2 else 0.45 if brand < 0.3 else 0.2) * h
    draw.circle((x, y), 0.135 * m, fill=white, outline=detail.accent, width=max(1, m // 80))
    _blot(draw, (detail.emblem, 0, 0, 1, 0, ""), (x, y), 0.1 * m, detail.accent)
    _write(draw, f"{detail.number}", ((0.17 if right and mx > 0.4 else 0.83) * w, 0.65 * h), (0.2 * w, 0.11 * h), detail.accent)
    for k in range(detail.stripes):
        draw.rectangle((0, h * (0.952 - 0.037 * k), w, h * (0.976 - 0.037 * k)), fill=detail.accent)
    return art.reduce(3)


def _grid(seed: int, height: int, width: int, cells: tuple[int, ...], tall: int = 1) -> Floats:
    """Return smooth noise height x width of about -1..1: random grids of the given numbers of cells, finer ones weaker."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for k, n in enumerate(cells):
        cell = Image.fromarray(rng.uniform(-1, 1, (n * tall, n)).astype(np.float32))
        total += np.asarray(cell.resize((width, height), Image.Resampling.BICUBIC)) / 1.6**k
    return total


def _pack(picture: Image.Image) -> Pixels:
    """Return a picture's pixels, one number each."""
    pixels: Pixels = np.asarray(picture.convert("RGBA")).view(np.uint32)[..., 0]
    return pixels


def _skin(kind: Kind, detail: Detail, w: int, h: int) -> Image.Image:
    """Return the surface of a solid of revolution, once around: w x h pixels, the label's middle in the middle."""
    cap, _, _, (top, bottom, around) = SOLIDS[kind.shape]
    lid, body = _mix(kind.colours[1], detail.accent, (0, 0.5, 0.25)[detail.tint]), _mix(kind.colours[0])
    skin = Image.new("RGB", (w, h), body)
    draw = ImageDraw.Draw(skin)
    draw.rectangle((0, 0, w, int((cap + 0.07) * h)), fill=_mix(body, "#fff", 0.35))
    dice = random.Random(kind.name)
    for _ in range(70 if kind.motif in ("berry", "chili", "orange") else 0):  # pieces of fruit behind the glass
        x, y, r = dice.random() * w, dice.uniform(cap + 0.12, 1) * h, dice.uniform(0.02, 0.05) * h
        draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=_mix(body, kind.colours[4], dice.uniform(0.1, 0.6)))
    draw.rectangle((0, 0, w, max(0, int(cap * h) - 1)), fill=lid)
    for x in range(0, w, max(4, w // 70) if cap > 0.05 else w):
        draw.line((x, 2, x, int(cap * h) - 2), fill=_mix(lid, "#000", 0.2))
    front = _front(kind, detail, round(w * min(0.36, around)), round((bottom - top) * h))
    if around == 1:
        skin.paste(front.crop((0, 0, 1, front.height)).resize((w, front.height)), (0, round(top * h)))
        for k in range(9):  # small print on the left, a bar code on the right
            y = round((top + (bottom - top) * (0.3 + 0.05 * k)) * h)
            draw.line((w * 0.04, y, w * (0.2 if k % 3 else 0.16), y), fill=_mix(kind.colours[3]))
            draw.line((w * (0.84 + k / 90), h * 0.4, w * (0.84 + k / 90), h * 0.55), fill=_mix("#222"))
    skin.paste(front, ((w - front.width) // 2, round(top * h)))
    return skin


def _solid(kind: Kind, detail: Detail, unit: float) -> Solid:
    """Return a solid of revolution that fits a square of `unit` pixels."""
    cap, cap_radius, outline, _ = SOLIDS[kind.shape]
    widest = max(cap_radius, *(r for _, r in outline))
    h = round(unit / max(1, 1.35 * widest))
    w = round(2 * math.pi * widest * h)
    rows = (np.arange(h) + 0.5) / h
    body = np.interp(rows, [y for y, _ in outline], [r for _, r in outline])
    body = np.convolve(np.pad(body, 4, mode="edge"), np.ones(9) / 9, "valid")
    padded = np.pad(np.where(rows < cap, cap_radius, body) * h, math.ceil(0.4 * widest * h) + 2, mode="edge")
    radius = padded.astype(np.float32)[:, None]
    x = np.arange(-math.ceil(widest * h) - 1, math.ceil(widest * h) + 1, dtype=np.float32)[None] + 0.5
    across = np.clip(x / radius, -1, 1)
    cover = np.clip(radius - np.abs(x) + 0.5, 0, 1)
    column = np.arcsin(across) * (w / (2 * math.pi)) + w / 2
    skin, wide = _pack(_skin(kind, detail, w, h)), 2 * widest * h
    return Solid(wide, h, wide, kind.gloss, skin, radius, across, np.sqrt(1 - across**2), cover, column)


def _box(kind: Kind, detail: Detail, unit: float) -> Box:
    """Return a box that fits a square of `unit` pixels."""
    wide, deep = BOXES[kind.shape]
    h = round(unit / max(1, wide * 0.9))
    w, d = round(wide * h), round(deep * h)
    body, ink = _mix(kind.colours[0], kind.colours[2], 0.3), _mix(kind.colours[3])
    side, top = Image.new("RGB", (d, h), body), Image.new("RGB", (w, d), _mix(body, "#fff", 0.15))
    draw = ImageDraw.Draw(side)
    draw.rectangle((d * 0.12, h * 0.3, d * 0.88, h * 0.7), fill=_mix("#fffdf4"), outline=ink)
    for k in range(10):
        draw.line((d * 0.18, h * (0.34 + k * 0.035), d * (0.8 if k % 3 else 0.6), h * (0.34 + k * 0.035)), fill=_mix("#666"))
    _write(draw, kind.brand, (d / 2, h * 0.16), (d * 0.8, h * 0.12), ink)
    for k in range(detail.stripes):
        draw.rectangle((0, h * (0.952 - 0.037 * k), d, h * (0.976 - 0.037 * k)), fill=detail.accent)
    draw = ImageDraw.Draw(top)
    draw.line((0, d / 2, w, d / 2), fill=_mix(body, "#000", 0.25), width=max(1, d // 40))
    _write(draw, kind.brand, (w / 2, d * 0.76), (w * 0.6, d * 0.3), ink)
    sides = []
    for face in (_front(kind, detail, w, h), side, top):
        sides.append(Image.new("RGBA", (face.width + 2, face.height + 2), (*body, 0)))
        sides[-1].paste(face, (1, 1))
    return Box(w, h, d, tuple(sides))


def _bag(kind: Kind, detail: Detail, unit: float) -> Bag:
    """Return a pillow bag `unit` pixels high with crimped ends and wrinkles."""
    wide, waist = BAGS[kind.shape]
    h, w = round(unit), round(wide * unit)
    y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w * 2 - 1, indexing="ij")
    half = 1 - waist + waist * np.cos(2 * np.pi * y) - 0.01 * _grid(3, h, w, (3,), 3)
    end = np.minimum(y, 1 - y)
    zigzag = 0.012 + 0.006 * np.abs((x * 16) % 2 - 1)
    cover = np.clip((half - np.abs(x)) * w / 2, 0, 1) * np.clip((end - zigzag) * h, 0, 1)
    bulge = np.clip(1 - np.abs(x) ** 2.5, 0, 1) * np.sin(np.pi * np.clip(y, 0.05, 0.95)) ** 0.6
    wrinkles = _grid(len(kind.name), h, w, (4, 8, 16)) * 0.02 + _grid(5, h, w, (14, 26)) * 0.02 * np.clip(0.8 - end * 2.6, 0, 1)
    down, right = np.gradient((0.28 * bulge + wrinkles) * h)
    down += 0.5 * np.sin(y * h * 1.6) * (end < 0.075)
    norm = np.sqrt(right**2 + down**2 + 1)
    front = Image.new("RGB", (w, h), _mix(kind.colours[0]))
    front.paste(_front(kind, detail, w, round(0.86 * h)), (0, round(0.07 * h)))
    front.putalpha(Image.fromarray((cover * 255).astype(np.uint8)))
    nx, ny, nz = ((a / norm).astype(np.float32) for a in (-right, -down, np.ones_like(norm)))
    return Bag(w, h, 0.3 * w, kind.gloss, _pack(front), (nx, ny, nz))


@lru_cache(maxsize=64)
def _product(class_index: int, size: int) -> Product:
    """Return the drawn product of a class for photographs whose shorter side is `size` pixels."""
    place, variant = _locate(class_index)
    kind, detail = KINDS[place], _detail(place, variant)
    if kind.shape in SOLIDS:
        return _solid(kind, detail, 0.86 * size)
    return _box(kind, detail, 0.86 * size) if kind.shape in BOXES else _bag(kind, detail, 0.86 * size)


def _project(product: Product, points: tuple[Vector, ...], pose: Pose) -> Floats:
    """Return points (n x 3: right, down, away from the camera; from the product's foot) on the photograph (n x 2)."""
    far = 4 * max(product.width, product.height)
    px, py, pz = np.array(points, np.float32).T
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    px, pz = px * cos + pz * sin, pz * cos - px * sin
    cos, sin = math.cos(pose.pitch), math.sin(pose.pitch)
    py, pz = py * cos - pz * sin, pz * cos + py * sin
    near = pose.scale * far / (far + pz)
    cos, sin = math.cos(pose.roll) * near, math.sin(pose.roll) * near
    return np.stack([px * cos - py * sin + pose.x, px * sin + py * cos + pose.y], 1)


def _lit(pixels: Pixels, slope: tuple[Floats, Floats, Floats], light: Vector, gloss: float, cover: Floats | None = None) -> Image.Image:
    """Return pixels of a surface of the given directions under a light, RGBA; cover replaces their opacity."""
    (nx, ny, nz), (lx, ly, lz) = slope, light
    matt = 0.5 + 0.6 * np.maximum(nx * lx + ny * ly + nz * lz, 0)
    shine = np.maximum((nx * lx + ny * ly + nz * (lz + 1)) / math.hypot(lx, ly, lz + 1), 0) ** 2
    for _ in range(4):
        shine = shine * shine
    rgba = pixels.view(np.uint8).reshape(*pixels.shape, 4)
    out = np.empty_like(rgba)
    out[..., :3] = np.minimum(rgba[..., :3] * matt[..., None] + (shine * (170 * gloss))[..., None], 255)
    out[..., 3] = rgba[..., 3] if cover is None else cover * 255
    return Image.fromarray(out)


def _turned(solid: Solid, pose: Pose) -> Image.Image:
    """Return a solid of revolution turned by pose.yaw and seen from pose.pitch above, RGBA."""
    h, w = solid.skin.shape
    rise = (np.arange(len(solid.radius), dtype=np.float32) - (len(solid.radius) - h) // 2)[:, None]
    tilt = math.sin(pose.pitch)
    row = rise - tilt * solid.radius * solid.facing
    column = (solid.column + pose.yaw * w / (2 * math.pi)).astype(np.int32) % w
    pixels = solid.skin.ravel()[np.clip(row.astype(np.int32), 0, h - 1) * w + column]
    cover = solid.cover * np.clip(h - row, 0, 1)
    nx, ny, nz = solid.across, np.zeros_like(cover), solid.facing
    above = row < 0
    cover[above] = 0
    if tilt > 0.02:
        out = solid.across**2 + (rise / (tilt * solid.radius)) ** 2
        lid = above & (out < 1)
        tone = solid.skin[1:2, :1].view(np.uint8)[:, :3] * np.where(out > 0.8, 0.75, np.where(out > 0.64, 1.12, 1.0))[lid][:, None] + 12
        pixels[lid] = np.insert(np.minimum(tone, 255).astype(np.uint8), 3, 255, 1).view(np.uint32)[:, 0]
        cover[lid] = solid.cover[lid]
        nx, ny, nz = np.where(lid, 0, nx), np.where(lid, -0.8, ny), np.where(lid, 0.6, nz)
    return _lit(pixels, (nx, ny, nz), pose.light, solid.gloss, cover)


def _faces(product: Product, pose: Pose) -> Faces:
    """Return the visible faces of a product, lit, and where they go."""
    w, h, d = product.width / 2, product.height, product.depth / 2
    if isinstance(product, Solid):
        picture = _turned(product, pose)
        x, y = picture.width / 2, (picture.height - h) / 2
        return [(picture, 0, _project(product, ((-x, -h - y, 0), (x, -h - y, 0), (x, y, 0), (-x, y, 0)), replace(pose, yaw=0)))]
    if isinstance(product, Bag):
        picture = _lit(product.skin, product.slope, pose.light, product.gloss)
        return [(picture, 0, _project(product, ((-w, -h, 0), (w, -h, 0), (w, 0, 0), (-w, 0, 0)), pose))]
    assert isinstance(product, Box)
    (lx, ly, lz), cos, sin = pose.light, math.cos(pose.yaw), math.sin(pose.yaw)
    s = 1 if sin > 0 else -1  # the side that shows: right or left
    found: Faces = []
    for picture, corners, facing in (
        (product.sides[2], ((-w, -h, d), (w, -h, d), (w, -h, -d), (-w, -h, -d)), 0.2 - ly),
        (product.sides[1], ((s * w, -h, -s * d), (s * w, -h, s * d), (s * w, 0, s * d), (s * w, 0, -s * d)), lz * abs(sin) + lx * s * cos),
        (product.sides[0], ((-w, -h, -d), (w, -h, -d), (w, 0, -d), (-w, 0, -d)), lz * cos - lx * sin),
    ):
        quad = _project(product, corners, pose)
        (ax, ay), (bx, by), _, (ex, ey) = quad.tolist()
        if (bx - ax) * (ey - ay) - (by - ay) * (ex - ax) > 4:  # turned to the camera, and more than a line
            found.append((picture.point([*_ramp(*[0.55 + 0.55 * max(0, facing)] * 3), *range(256)]), 1, quad))
    return found


def _put(canvas: Image.Image, faces: Faces) -> None:
    """Draw faces on the photograph, each stretched to its corners."""
    for picture, edge, quad in faces:
        left, top = (max(0, math.floor(v) - 1) for v in quad.min(0))
        right, bottom = (min(limit, math.ceil(v) + 1) for limit, v in zip(canvas.size, quad.max(0), strict=True))
        if right - left < 2 or bottom - top < 2:
            continue
        w, h = picture.width - edge, picture.height - edge
        rows, goal = [], []
        for (x, y), (u, v) in zip((quad - (left, top)).tolist(), ((edge, edge), (w, edge), (w, h), (edge, h)), strict=True):
            rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
            goal += [u, v]
        terms = np.linalg.solve(np.array(rows), np.array(goal)).tolist()
        patch = picture.transform((right - left, bottom - top), Image.Transform.PERSPECTIVE, terms, SMOOTH)
        canvas.paste(patch, (left, top), patch)


@lru_cache(maxsize=2)
def _textures(size: int) -> tuple[Image.Image, ...]:
    """Return walls and grounds, RGB squares of 2.2 x size: wood, planks, linen, marble, tiles, check, concrete, plaster, brick."""
    n = round(2.2 * size)
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / size
    fine, cloud, streak = _grid(1, n, n, (40, 90, 200)), _grid(2, n, n, (4, 8, 16, 40)), _grid(4, n, n, (3, 7), 30)
    board = np.where(np.abs((y * 4) % 1 - 0.5) > 0.485, 0.45, 1 + 0.14 * streak + 0.12 * np.sin(np.floor(y * 4) * 12.9) + 0.03 * fine)
    weave = np.sin(x * 260) * np.sin(y * 260)
    tile = (np.abs((x * 3) % 1 - 0.5) > 0.48) | (np.abs((y * 3) % 1 - 0.5) > 0.48)
    check = ((x * 6) % 1 > 0.5).astype(np.float32) + ((y * 6) % 1 > 0.5)
    mortar = (np.abs((y * 7) % 1 - 0.5) > 0.44) | (np.abs((x * 3 + 0.5 * (np.floor(y * 7) % 2)) % 1 - 0.5) > 0.475)
    glaze, clay = np.sin(np.floor(x * 3) * 7 + np.floor(y * 3) * 5), np.sin(np.floor(x * 3) * 9 + np.floor(y * 7) * 4)
    found = []
    for tone, pattern in (
        ("#b98a58", 1 + 0.16 * streak + 0.03 * fine),
        ("#8b6a4a", board),
        ("#cfc3ae", 1 + 0.05 * weave + 0.06 * fine + 0.03 * cloud),
        ("#dcdad6", 1 + 0.05 * cloud - 0.22 * np.exp(-((cloud * 6) ** 2)) + 0.02 * fine),
        ("#c9d6d6", np.where(tile, 0.78, 1 + 0.03 * glaze) + 0.02 * fine),
        ("#e8e4dc", 1 - 0.16 * check + 0.03 * weave),
        ("#9d9c98", 1 + 0.1 * cloud + 0.07 * fine),
        ("#d8d4cc", 1 + 0.02 * cloud),
        ("#b0785c", np.where(mortar, 1.25, 1 + 0.1 * fine + 0.1 * clay)),
    ):
        found.append(Image.fromarray(np.clip(np.array(_mix(tone)) * pattern[..., None], 0, 255).astype(np.uint8)))
    return tuple(found)


@lru_cache(maxsize=2)
def _grains(size: int) -> tuple[Image.Image, ...]:
    """Return sensor noise round 128, weak to strong, RGB squares of 2 x size."""
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 1, (2 * size, 2 * size, 1)) + 0.5 * rng.normal(0, 1, (2 * size, 2 * size, 3))
    return tuple(Image.fromarray(np.clip(128 + noise * s, 0, 255).astype(np.uint8)) for s in (1.5, 2.5, 4, 6))


@lru_cache(maxsize=2)
def _glare(size: int) -> Image.Image:
    """Return a soft round spot, L, size x size."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1) * 2 - 1
    return Image.fromarray((140 * np.clip(1 - (x * x + y * y), 0, 1) ** 1.5).astype(np.uint8))


@lru_cache(maxsize=256)
def _other(place: int, height: int, size: int) -> Image.Image:
    """Return a product used as clutter, RGBA of about `height` pixels (less if it is wide)."""
    product = _product(OTHERS + place * VARIANTS, size)
    scale = height / max(product.height, 0.8 * product.width)
    middle, bottom = math.ceil(product.width * scale), math.ceil(height * 1.4)
    pose = Pose((place % 5 - 2) * 0.2, 0.12, 0, scale, middle, bottom, (-0.4, -0.5, 0.75))
    canvas = Image.new("RGBA", (2 * middle, bottom + height), (128, 128, 128, 0))
    for face in _faces(product, pose):
        layer = Image.new("RGBA", canvas.size, (128, 128, 128, 0))
        _put(layer, [face])
        canvas.alpha_composite(layer)
    return canvas.crop(canvas.getbbox()).filter(ImageFilter.BoxBlur(size / 300))


def _tint(rng: random.Random, light: float) -> list[float]:
    """Return gains of red, green and blue: a random tint, `light` bright."""
    return [light * level / 250 for level in _mix(rng.choice(TINTS))]


def _cut(shot: Shot, texture: int, w: int, h: int, squeeze: float = 1) -> Image.Image:
    """Return a random piece of a texture, w x h pixels, tinted; squeeze > 1 shows more of its height (a ground seen flat)."""
    source, rng = _textures(shot.size)[texture], shot.rng
    zoom = rng.uniform(0.7, 1.15)
    across, down = min(source.width, w * zoom), min(source.height, h * zoom * squeeze)
    left, top = rng.uniform(0, source.width - across), rng.uniform(0, source.height - down)
    piece = source.resize((w, h), SMOOTH, (left, top, left + across, top + down))
    return piece.point(_ramp(*_tint(rng, rng.uniform(0.65, 1.1))))


def _stand(canvas: Image.Image, shot: Shot, place: Place, height: float, turn: bool = False) -> None:
    """Set some other product, about `height` pixels high, with the middle of its foot at a place, perhaps lying on a side."""
    step = max(4, shot.size // 16)  # few heights, so that the pictures can be kept
    other = _other(shot.rng.randrange(len(KINDS)), max(1, round(height / step)) * step, shot.size)
    if turn:
        other = other.transpose(shot.rng.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)))
    canvas.paste(other, (round(place[0] - other.width / 2), round(place[1] - other.height)), other)


def _backdrop(shot: Shot) -> Image.Image:
    """Return an empty place with other products about."""
    rng, w, h, foot, size = shot.rng, shot.w, shot.h, shot.foot, shot.size
    if shot.scene == "studio":
        tint, grid = _tint(rng, rng.uniform(120, 235)), Image.new("RGB", (2, 4))
        for k, gain in enumerate((0.8, 0.75, 0.95, 0.9, 1, 1, 0.85, 0.8)):
            grid.putpixel((k % 2, k // 2), tuple(min(255, int(gain * t)) for t in tint))
        return grid.resize((w, h), Image.Resampling.BICUBIC)
    ground = rng.choice((0, 1, 2, 3, 5, 6))
    if shot.scene == "flat":
        canvas = _cut(shot, ground, w, h)
        for _ in range(rng.choice((0, 1, 2, 2, 3))):
            place = rng.choice((-0.08, 0, 1, 1.08)) * w, rng.uniform(0.3, 1.3) * h
            _stand(canvas, shot, place, rng.uniform(0.5, 0.9) * size, True)
        return canvas
    # What is far away is drawn at half the size: it comes out of focus and costs little.
    canvas = _cut(shot, rng.choice((2, 4, 6, 7, 8)), w // 2, h // 2)
    if shot.scene == "shelf":
        canvas, tall = canvas.point(_ramp(0.65, 0.65, 0.65)), rng.uniform(0.2, 0.34) * h
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
        place = rng.choice((-0.02, 0.05, 0.95, 1.02)) * w, foot - rng.uniform(0, 0.1) * h
        _stand(canvas, shot, place, rng.uniform(0.4, 0.7) * h)
    return canvas


def _board(canvas: Image.Image, shot: Shot) -> None:
    """Draw a shelf's board with price tags below the foot."""
    rng, size, grey, lip = shot.rng, shot.size, shot.rng.randint(120, 240), int(shot.foot + 0.03 * shot.h)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, int(shot.foot - 0.05 * shot.h), shot.w, lip), fill=_mix((grey, grey, grey), "#000", 0.25))
    draw.rectangle((0, lip, shot.w, shot.h), fill=(grey, grey, grey))
    for k in range(rng.randint(1, 3)):
        x, price = shot.w * (rng.random() + k) / 3, f"{rng.randint(0, 9)}.{rng.randint(10, 99)}"
        draw.rectangle((x, lip + 2, x + 0.16 * size, lip + 0.09 * size), fill=_mix("#fff8d8"))
        _write(draw, price, (x + 0.08 * size, lip + 0.05 * size), (0.12 * size, 0.07 * size), _mix("#222"))


def _poses(shot: Shot, product: Product) -> list[Pose]:
    """Return where the product stands or lies, and its copies; the main one comes last."""
    rng, w, h, flat = shot.rng, shot.w, shot.h, shot.scene == "flat"
    yaw = rng.uniform(-0.3, 0.3) if flat else rng.choice((-1, 1)) * rng.uniform(0.05, 0.75)
    pitch = rng.uniform(-0.08, 0.08) if flat else rng.uniform(-0.02, 0.36)
    roll = rng.uniform(-0.7, 0.7) if flat else rng.gauss(0, 0.05)
    wide = product.width if isinstance(product, Solid) else product.width * math.cos(yaw) + product.depth * abs(math.sin(yaw))
    scale = min(rng.uniform(0.6, 0.98) * shot.foot / product.height, rng.uniform(0.55, 0.9) * w / wide)
    light = (rng.uniform(-0.8, 0.8), rng.uniform(-0.65, -0.1), 0.75)
    main = Pose(yaw, pitch, roll, scale, w * rng.uniform(0.36, 0.64), shot.foot, light)
    if flat:
        middle, reach = h * rng.uniform(0.4, 0.6), product.height * scale / 2
        main = replace(main, x=main.x - math.sin(roll) * reach, y=middle + math.cos(roll) * reach)
    side, copies = rng.choice((-1, 1)), rng.choices((0, 1, 2), {"shelf": (2, 3, 5), "studio": (1, 0, 0)}.get(shot.scene, (7, 2, 1)))[0]
    poses = []
    for k in range(copies):
        step = side * (1 - 2 * k) * wide * scale * rng.uniform(1.02, 1.2)
        place = (main.x + step * math.cos(roll), main.y + step * math.sin(roll) + rng.uniform(-0.02, 0.01) * h)
        poses.append(replace(main, x=place[0], y=place[1], yaw=yaw + rng.gauss(0, 0.15), roll=roll + rng.gauss(0, 0.02)))
    return [*poses, main]


def _shadow(canvas: Image.Image, product: Product, poses: list[Pose], flat: bool) -> None:
    """Darken the ground beside and under a product and its copies."""
    cell = max(2, min(canvas.size) // 42)
    mask = Image.new("L", (canvas.width // cell + 1, canvas.height // cell + 1))
    draw = ImageDraw.Draw(mask)
    w, h, d = product.width / 2, product.height, product.depth / 2
    for pose in poses:
        points = _project(product, ((-w, -h, 0), (w, -h, 0), (w, 0, 0), (-w, 0, 0), (0, 0, -d)), pose) / cell
        outline: list[Place] = [(x, y) for x, y in points.tolist()]
        (_, top), _, (x1, y1), (x0, y0), (_, front) = outline
        tall, wide = y0 - top, abs(x1 - x0)
        if flat:
            draw.polygon([(x - pose.light[0] * 0.12 * wide, y + 0.06 * wide) for x, y in outline[:4]], fill=120)
            continue
        dx, dy = -pose.light[0] * 0.7 * tall, -0.14 * tall
        draw.polygon([(x0, y0), (x1, y1), (x1 + dx, y1 + dy), (x0 + dx, y0 + dy)], fill=80)
        x, y, deep = (x0 + x1) / 2, (y0 + y1) / 2, max(1.0, front - (y0 + y1) / 2)
        draw.ellipse((x - wide * 0.58, y - deep, x + wide * 0.58, y + deep * 1.15 + 0.5), fill=190)
    soft = mask.filter(ImageFilter.BoxBlur(1)).resize((mask.width * cell, mask.height * cell), SMOOTH)
    canvas.paste((12, 10, 14), (0, 0), soft.crop((0, 0, *canvas.size)))


def _occlude(canvas: Image.Image, shot: Shot) -> None:
    """Put something in front: another product at the edge, or a price sticker."""
    rng, size, w, h = shot.rng, shot.size, shot.w, shot.h
    if rng.random() < 0.6:
        _stand(canvas, shot, (rng.choice((-0.02, 0.06, 0.94, 1.02)) * w, h * rng.uniform(1.05, 1.3)), h * rng.uniform(0.55, 0.8))
        return
    tag = Image.new("RGBA", (size // 5, size // 9), rng.choice(("#ffe13c", "#fafaf5", "#e63c32")))
    _write(
        ImageDraw.Draw(tag), f"-{rng.randint(1, 9)}0%", (tag.width / 2, tag.height / 2), (tag.width * 0.8, tag.height * 0.8), _mix("#222")
    )
    tag = tag.rotate(rng.uniform(-20, 20), SMOOTH, expand=True)
    canvas.paste(tag, (int(rng.uniform(0.3, 0.6) * w), int(rng.uniform(0.35, 0.75) * h)), tag)


def _develop(canvas: Image.Image, shot: Shot) -> Image.Image:
    """Return the photograph under uneven light: with glare, colour temperature, exposure, blur and sensor noise."""
    rng, w, h = shot.rng, shot.w, shot.h
    turn, depth = rng.random() * 6.28, rng.uniform(0, 0.2)
    shade = Image.new("L", (4, 4))
    for k in range(16):
        slope = math.cos(turn) * (k % 4 / 1.5 - 1) + math.sin(turn) * (k // 4 / 1.5 - 1)
        shade.putpixel((k % 4, k // 4), max(0, int(255 * (1 - depth * (1.4 + slope) - 0.14 * rng.random()))))
    light = shade.resize((w, h), Image.Resampling.BICUBIC)
    canvas = ImageChops.multiply(canvas, Image.merge("RGB", (light, light, light)))
    if rng.random() < 0.12:
        canvas.paste((255, 252, 240), (int(rng.uniform(-0.4, 0.8) * w), int(rng.uniform(-0.5, 0.6) * h)), _glare(shot.size))
    warm, tint, contrast = rng.gauss(0, 0.08), rng.gauss(0, 0.025), rng.uniform(0.8, 1.25)
    gains = np.array([[1 + warm], [1 + tint], [1 - warm]]) * rng.uniform(0.95, 1.4) / 255
    levels = ((LEVELS * gains) ** rng.uniform(0.8, 1.15) - 0.45) * contrast + 0.45
    canvas = canvas.point(np.clip(levels * 255, 0, 255).astype(int).ravel().tolist())
    blur, shake = rng.choice((0, 0, 0.3, 0.5, 0.8)), rng.choice((0, 0, 0, 1)) * rng.uniform(0.4, 1.6)
    if blur + shake > 0:
        across = rng.random() < 0.6
        radius = (blur + shake * across) * shot.size / 256, (blur + shake * (not across)) * shot.size / 256
        canvas = canvas.filter(ImageFilter.BoxBlur(radius))
    grain = rng.choice(_grains(shot.size))
    x, y = rng.randrange(grain.width - w + 1), rng.randrange(grain.height - h + 1)
    return ImageChops.add(canvas, grain.crop((x, y, x + w, y + h)), 1, -128)


def render(class_index: int, image_index: int, seed: int = 0, size: int = 256) -> Image.Image:
    """Return a photograph of a class's product: RGB, shorter side `size` pixels (32 or more), the same for the same arguments."""
    product = _product(class_index, size)
    rng = random.Random(f"{seed}/{class_index}/{image_index}")
    longer = round(size * rng.choice((1, 1.25, 4 / 3, 4 / 3, 1.5)))
    w, h = (size, longer) if rng.random() < (0.7 if product.height > product.width else 0.4) else (longer, size)
    scene = rng.choices(("table", "shelf", "flat", "studio"), (5, 3, 2, 2))[0]
    shot = Shot(rng, scene, size, w, h, h * rng.uniform(0.78, 0.95))
    canvas, poses = _backdrop(shot), _poses(shot, product)
    _shadow(canvas, product, poses, scene == "flat")
    for pose in poses:
        _put(canvas, _faces(product, pose))
    if rng.random() < 0.2:
        _occlude(canvas, shot)
    return _develop(canvas, shot)


def _write_some(job: Job) -> int:
    """Write the photographs of a job; return how many."""
    folder, class_index, indices, seed, size = job
    place = folder.joinpath(*label_path(class_index))
    place.mkdir(parents=True, exist_ok=True)
    for index in indices:
        quality = random.Random(f"{seed}/{class_index}/{index}/jpeg").randint(60, 95)
        render(class_index, index, seed, size).save(place / f"{index:03d}.jpg", quality=quality)
    return len(indices)


def _results(jobs: list[Job], pool: bool) -> Iterator[int]:
    """Do the jobs of `_write_some`, here or in processes of their own; yield what each returns."""
    if not pool:
        yield from map(_write_some, jobs)
        return
    # Spawned, not forked: threads of torch may be running in the caller.
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(jobs)), multiprocessing.get_context("spawn")) as workers:
        yield from workers.map(_write_some, jobs)


def write_rendered(folder: Path, classes: int = 36, images: int = 40, seed: int = 0, size: int = 256, *, progress: bool = False) -> int:
    """Write `images` photographs of each of `classes` products as folder/group/kind/variant/nnn.jpg; return how many files.

    Above POOL_FROM photographs several processes draw: a script that calls this then needs the usual __main__ guard. Files of the
    same names are overwritten. Raises DataError if a number is too small.
    """
    for name, value, least in (("classes", classes, 1), ("images", images, 1), ("size", size, 32)):
        if value < least:
            raise DataError(f"{name} must be {least} or more, not {value}")
    parts = [range(first, min(first + CHUNK, images)) for first in range(0, images, CHUNK)]
    jobs = [(folder, c, part, seed, size) for c in range(classes) for part in parts]
    total = 0
    with Progress(transient=True, disable=not progress) as bar:
        task = bar.add_task("drawing photographs", total=classes * images)
        for done in _results(jobs, classes * images > POOL_FROM):
            total += done
            bar.advance(task, done)
    return total

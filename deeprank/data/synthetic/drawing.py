"""What is printed on a product: outlines, motifs made of them, writing, patterns, and the front that has all of these."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deeprank.data.synthetic.products import Color, Detail, Kind, mix

Floats = NDArray[np.floating]
Place = tuple[float, float]  # x, y in pixels, or width, height

# Where things go on a front: brand's y, motif's x, y and radius, word's y; fractions of width, height, shorter side.
LAYOUTS = ((0.14, 0.5, 0.49, 0.24, 0.79), (0.27, 0.5, 0.62, 0.22, 0.1), (0.16, 0.3, 0.5, 0.25, 0.78), (0.52, 0.5, 0.25, 0.19, 0.68))
# Layers of each motif: shape, x, y, size, turn in degrees, tone (i ink, s spot, d dark spot, w light spot, g green, k brown).
MOTIFS = """
orange: disc 0 .08 .9 0 s, disc 0 .08 .76 0 w, petals 0 .08 .72 0 s, leaf .42 -.86 .42 65 g
bowl: disc -.35 -.2 .2 0 k, disc .05 -.3 .24 0 s, disc .42 -.2 .2 0 k, bowl 0 0 .95 0 i, leaf .6 -.6 .55 30 d
berry: disc -.38 .2 .5 0 d, disc .38 .25 .5 0 s, disc 0 -.2 .5 0 s, disc -.16 -.36 .13 0 w, disc .24 .08 .12 0 w, leaf .4 -.72 .4 60 g, \
leaf -.4 -.72 .4 -60 g
tomato: disc 0 .1 .88 0 s, disc -.3 -.2 .2 0 w, star 0 -.55 .5 0 g
bean: oval -.32 .1 .72 -25 s, leaf -.32 .1 .62 -18 i, oval .4 -.05 .66 30 d, leaf .4 -.05 .55 24 i
flower: leaf -.55 .7 .5 -60 g, leaf .55 .7 .5 60 g, flower 0 0 .9 0 s, disc 0 0 .3 0 w, disc 0 0 .2 0 d
grape: disc 0 .75 .27 0 s, disc -.25 .33 .27 0 d, disc .25 .33 .27 0 s, disc -.5 -.09 .27 0 s, disc 0 -.09 .27 0 d, disc .5 -.09 .27 0 s, \
disc -.75 -.51 .27 0 d, disc -.25 -.51 .27 0 s, disc .25 -.51 .27 0 d, disc .75 -.51 .27 0 s, leaf .3 -.9 .4 70 g
leaf: leaf 0 -.15 .85 0 g, leaf -.5 .2 .7 -45 s, leaf .5 .2 .7 45 s
comb: hexagon -.45 -.3 .48 0 s, hexagon .45 -.3 .48 0 d, hexagon 0 .48 .48 0 s, drop .62 .6 .36 0 s
fish: drop .7 -.55 .18 0 s, fish 0 0 1.1 0 i, fish .1 .03 .7 0 s, disc .62 -.14 .09 0 w
sun: sun 0 0 1 0 s, oval 0 0 .62 60 w, oval .05 .05 .5 60 d
cone: cone 0 .05 .9 0 k, disc -.28 -.3 .36 0 s, disc .28 -.3 .36 0 d, disc 0 -.65 .34 0 w, disc .05 -.98 .12 0 i
biscuit: sun 0 0 .95 6 d, disc 0 0 .78 0 s, disc 0 .42 .11 0 k, disc .35 .23 .11 0 k, disc .38 -.17 .11 0 k, disc .06 -.42 .11 0 k, \
disc -.32 -.27 .11 0 k, disc -.4 .12 .11 0 k, disc -.12 .4 .11 0 k
chili: moon 0 0 .8 -70 s, leaf .45 -.65 .35 30 g, moon -.4 .3 .6 -50 g
bolt: disc 0 0 .95 0 i, bolt 0 0 .85 0 s
wheat: leaf -.27 .65 .33 -38 s, leaf .27 .65 .33 38 s, leaf -.27 .27 .33 -38 d, leaf .27 .27 .33 38 d, leaf -.27 -.11 .33 -38 s, \
leaf .27 -.11 .33 38 s, leaf -.27 -.49 .33 -38 d, leaf .27 -.49 .33 38 d, leaf 0 -.85 .33 0 s
mountain: disc .35 -.35 .42 0 w, mountain 0 0 1 0 i, mountain -.25 -.33 .3 0 w, mountain .45 .4 .5 0 s
drop: drop 0 -.1 .85 0 s, drop -.12 .08 .5 0 w, crown 0 .75 .5 0 i
"""


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
LAYERS = dict(row.split(": ") for row in MOTIFS.strip().splitlines())


def _blot(draw: ImageDraw.ImageDraw, layers: str, place: Place, r: float, tones: dict[str, Color]) -> None:
    """Fill the layers of a motif of radius r pixels round a place."""
    for layer in layers.split(", "):
        shape, *numbers, tone = layer.split()
        x, y, size, turn = map(float, numbers)
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        points = (SHAPES[shape] @ np.array(((cos, sin), (-sin, cos))) * size + (x, y)) * r + place
        draw.polygon(points.ravel().tolist(), fill=tones[tone])


def write(draw: ImageDraw.ImageDraw, text: str, place: Place, room: Place, fill: Color) -> None:
    """Write text centered on a place, as large as fits the room (w, h)."""
    size = max(6, int(min(room[1], room[0] / (ImageFont.load_default(100).getlength(text) / 100 + 0.06))))
    draw.text(place, text, fill=fill, font=ImageFont.load_default(size), anchor="mm", stroke_width=size * 0.03)


def _pattern(draw: ImageDraw.ImageDraw, name: str, size: tuple[int, int], ink: Color, soft: Color) -> None:
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
        for inset, color in ((0.035, ink), (0.075, soft)):
            draw.rectangle((inset * m, inset * m, w - inset * m, h - inset * m), outline=color, width=max(1, m // 45))
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


def stripes(draw: ImageDraw.ImageDraw, detail: Detail, w: float, h: float) -> None:
    """Draw a variant's stripes at the foot of a face of w x h pixels."""
    for k in range(detail.stripes):
        draw.rectangle((0, h * (0.952 - 0.037 * k), w, h * (0.976 - 0.037 * k)), fill=detail.accent)


def front(kind: Kind, detail: Detail, width: int, height: int) -> Image.Image:
    """Return the printed front, RGB of width x height pixels, drawn at three times that size."""
    w, h, m = width * 3, height * 3, min(width, height) * 3
    paper, ink, spot, white = mix(kind.paper, detail.accent, (0, 0.16, 0.32)[detail.tint]), kind.ink, kind.spot, "#fffdf6"
    art = Image.new("RGB", (w, h), paper)
    draw = ImageDraw.Draw(art)
    _pattern(draw, kind.pattern, (w, h), ink, mix(paper, spot, 0.35))
    brand, mx, my, mr, word = LAYOUTS[kind.layout]
    busy = kind.pattern in ("rays", "stripe", "diagonal")
    plate = kind.layout in (0, 2) or busy
    if plate:
        draw.rounded_rectangle((0.07 * w, (brand - 0.095) * h, 0.93 * w, (brand + 0.095) * h), 0.03 * m, fill=ink)
    on_ink = plate or (kind.pattern == "split" and brand < 0.3)
    write(draw, kind.brand, (w / 2, brand * h), (0.78 * w, 0.17 * h), paper if on_ink else ink)
    x, y, r = mx * w, my * h, mr * m
    if busy or kind.pattern in ("wave", "dots"):
        draw.circle((x, y), 1.3 * r, fill=white, outline=spot, width=max(1, m // 70))
    dark, light = mix(spot, "#301008", 0.25), mix(spot, "#fff", 0.8)
    tones: dict[str, Color] = {"i": ink, "s": spot, "d": dark, "w": light, "g": "#4f9a3c", "k": "#8a5a30", "accent": detail.accent}
    _blot(draw, LAYERS[kind.motif], (x, y), r, tones)
    # From here on the details, which are all that tells the variants of a kind apart.
    on_dark = sum(paper) < 360 or (kind.pattern == "wave" and word > 0.66)
    write(draw, detail.word, (w / 2, word * h), (0.55 * w, 0.11 * h), white if on_dark else "#2a211c")
    right = detail.right or mx < 0.4
    x, y = (0.83 if right else 0.17) * w, (0.37 if brand < 0.2 else 0.45 if brand < 0.3 else 0.2) * h
    draw.circle((x, y), 0.135 * m, fill=white, outline=detail.accent, width=max(1, m // 80))
    _blot(draw, f"{detail.emblem} 0 0 1 0 accent", (x, y), 0.1 * m, tones)
    write(draw, f"{detail.number}", ((0.17 if right and mx > 0.4 else 0.83) * w, 0.65 * h), (0.2 * w, 0.11 * h), detail.accent)
    stripes(draw, detail, w, h)
    return art.reduce(3)


def grid(seed: int, height: int, width: int, cells: tuple[int, ...], tall: int = 1) -> Floats:
    """Return smooth noise height x width of about -1..1: random grids of the given numbers of cells, finer ones weaker."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for k, n in enumerate(cells):
        cell = Image.fromarray(rng.uniform(-1, 1, (n * tall, n)).astype(np.float32))
        total += np.asarray(cell.resize((width, height), Image.Resampling.BICUBIC)) / 1.6**k
    return total

"""Draw the print of a product: motifs, text, background patterns, and the front that combines them."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeprank.data.synthetic.products import Kind, VariantDetails, mix_colors
from deeprank.data.synthetic.types import Color, FloatArray, Point, Size

SUPERSAMPLING = 3  # a front is drawn at this multiple of its size, then reduced
# A front's layouts: y of the brand; x, y and radius of the motif; y of the word; as fractions of width, height and shorter side.
FRONT_LAYOUTS = ((0.14, 0.5, 0.49, 0.24, 0.79), (0.27, 0.5, 0.62, 0.22, 0.1), (0.16, 0.3, 0.5, 0.25, 0.78), (0.52, 0.5, 0.25, 0.19, 0.68))
# Layers of each motif: outline, x, y, size, rotation in degrees, color key (i ink, s motif color, d dark and w light shade of it,
# g green, k brown).
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


def _outlines() -> dict[str, FloatArray]:
    """Return closed outlines (points, 2) within about -1 to 1; y points down."""
    t = np.linspace(0, 2 * np.pi, 61)[:-1]
    sin, cos, star, sun = np.sin(t), np.cos(t), np.arange(10), np.arange(28)

    def polar(radius: FloatArray, angle: FloatArray = t) -> FloatArray:
        return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1)

    def points(*values: float) -> FloatArray:
        return np.array(values).reshape(-1, 2)

    disc = polar(np.ones(60))
    return {
        "disc": disc,
        "oval": disc * (0.62, 1),
        "bowl": np.concatenate([disc[15:46], points(-0.55, -0.1, 0.55, -0.1)]),
        "moon": np.concatenate([disc[5:56], disc[52:8:-1] * 0.8 + (0, -0.32)]),
        "star": polar(np.where(star % 2, 0.42, 1), star * np.pi / 5),
        "sun": polar(np.where(sun % 2, 0.68, 1), sun * np.pi / 14),
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


OUTLINES = _outlines()
MOTIF_LAYERS = dict(row.split(": ") for row in MOTIFS.strip().splitlines())


def _draw_motif(draw: ImageDraw.ImageDraw, layers: str, center: Point, radius: float, colors: dict[str, Color]) -> None:
    """Fill the layers of a motif."""
    for layer in layers.split(", "):
        outline, *numbers, color = layer.split()
        x, y, size, rotation = map(float, numbers)
        cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
        points = (OUTLINES[outline] @ np.array(((cos, sin), (-sin, cos))) * size + (x, y)) * radius + center
        draw.polygon(points.ravel().tolist(), fill=colors[color])


def draw_text(draw: ImageDraw.ImageDraw, text: str, center: Point, box: Size, fill: Color) -> None:
    """Draw text at a center, as large as fits into the box."""
    size = max(6, int(min(box[1], box[0] / (ImageFont.load_default(100).getlength(text) / 100 + 0.06))))
    draw.text(center, text, fill=fill, font=ImageFont.load_default(size), anchor="mm", stroke_width=size * 0.03)


def _draw_pattern(draw: ImageDraw.ImageDraw, name: str, size: tuple[int, int], ink: Color, pale: Color) -> None:
    """Draw the background pattern of a front."""
    (w, h), m = size, min(size)
    if name == "rays":
        for k in range(0, 24, 2):
            ends = [(w / 2 + (w + h) * math.cos(a), h / 2 + (w + h) * math.sin(a)) for a in (math.pi * k / 12, math.pi * (k + 1) / 12)]
            draw.polygon([(w / 2, h / 2), *ends], fill=pale)
    elif name == "wave":
        for level, fill in ((0.6, pale), (0.72, ink)):
            crest = [(w * k / 40, h * (level + 0.06 * math.sin(k / 8 + level * 20))) for k in range(41)]
            draw.polygon([*crest, (w, h), (0, h)], fill=fill)
    elif name == "frame":
        for inset, color in ((0.035, ink), (0.075, pale)):
            draw.rectangle((inset * m, inset * m, w - inset * m, h - inset * m), outline=color, width=max(1, m // 45))
    elif name == "split":
        draw.polygon([(0, 0), (w, 0), (w, h * 0.3), (0, h * 0.42)], fill=ink)
    elif name == "stripe":
        for k in range(0, 14, 2):
            draw.rectangle((w * k / 14, 0, w * (k + 1) / 14, h), fill=pale)
    elif name == "dots":
        for k in range(80):
            draw.circle((w * (k % 8 + 0.5 * (k // 8 % 2)) / 7.5, h * (k // 8 + 0.5) / 10), m / 40, fill=pale)
    elif name == "diagonal":
        draw.polygon([(0, h), (0, h * 0.55), (w * 0.75, 0), (w, 0), (w, h * 0.15), (w * 0.15, h)], fill=pale)


def draw_stripes(draw: ImageDraw.ImageDraw, details: VariantDetails, width: float, height: float) -> None:
    """Draw a variant's stripes at the bottom of a face."""
    for k in range(details.stripes):
        draw.rectangle((0, height * (0.952 - 0.037 * k), width, height * (0.976 - 0.037 * k)), fill=details.accent_color)


def draw_front(kind: Kind, details: VariantDetails, width: int, height: int) -> Image.Image:
    """Return the printed front of a product as an RGB image of width x height pixels."""
    w, h, m = width * SUPERSAMPLING, height * SUPERSAMPLING, min(width, height) * SUPERSAMPLING
    paper = mix_colors(kind.paper_color, details.accent_color, (0, 0.16, 0.32)[details.label_shade])
    white = "#fffdf6"
    image = Image.new("RGB", (w, h), paper)
    draw = ImageDraw.Draw(image)
    _draw_pattern(draw, kind.pattern, (w, h), kind.ink_color, mix_colors(paper, kind.motif_color, 0.35))
    brand_y, motif_x, motif_y, motif_radius, word_y = FRONT_LAYOUTS[kind.layout]
    is_busy = kind.pattern in ("rays", "stripe", "diagonal")
    has_plate = kind.layout in (0, 2) or is_busy
    if has_plate:
        draw.rounded_rectangle((0.07 * w, (brand_y - 0.095) * h, 0.93 * w, (brand_y + 0.095) * h), 0.03 * m, fill=kind.ink_color)
    brand_on_ink = has_plate or (kind.pattern == "split" and brand_y < 0.3)
    draw_text(draw, kind.brand, (w / 2, brand_y * h), (0.78 * w, 0.17 * h), paper if brand_on_ink else kind.ink_color)
    center, radius = (motif_x * w, motif_y * h), motif_radius * m
    if is_busy or kind.pattern in ("wave", "dots"):
        draw.circle(center, 1.3 * radius, fill=white, outline=kind.motif_color, width=max(1, m // 70))
    colors: dict[str, Color] = {
        "i": kind.ink_color, "s": kind.motif_color, "d": mix_colors(kind.motif_color, "#301008", 0.25),
        "w": mix_colors(kind.motif_color, "#fff", 0.8), "g": "#4f9a3c", "k": "#8a5a30", "accent": details.accent_color,
    }  # fmt: skip
    _draw_motif(draw, MOTIF_LAYERS[kind.motif], center, radius, colors)
    # Only what follows differs between the variants of a kind.
    is_dark = sum(paper) < 360 or (kind.pattern == "wave" and word_y > 0.66)
    draw_text(draw, details.word, (w / 2, word_y * h), (0.55 * w, 0.11 * h), white if is_dark else "#2a211c")
    on_right = details.emblem_on_right or motif_x < 0.4
    center = (0.83 if on_right else 0.17) * w, (0.37 if brand_y < 0.2 else 0.45 if brand_y < 0.3 else 0.2) * h
    draw.circle(center, 0.135 * m, fill=white, outline=details.accent_color, width=max(1, m // 80))
    _draw_motif(draw, f"{details.emblem} 0 0 1 0 accent", center, 0.1 * m, colors)
    number_x = (0.17 if on_right and motif_x > 0.4 else 0.83) * w
    draw_text(draw, f"{details.number}", (number_x, 0.65 * h), (0.2 * w, 0.11 * h), details.accent_color)
    draw_stripes(draw, details, w, h)
    return image.reduce(SUPERSAMPLING)

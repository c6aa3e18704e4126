"""Draw things of one layout: in each set, the classes share shape and place and differ in colors, words or emblems."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

IMAGES_PER_CLASS = 12
COLORS = ("#b42020", "#208c28", "#2832b4", "#c8a428")
WORDS = ("CHILI", "HERB", "MINT", "CURRY")
SIZE = (300, 400)
Draw = Callable[[ImageDraw.ImageDraw, int, np.random.Generator], None]


def _bottle(draw: ImageDraw.ImageDraw, sort: int, rng: np.random.Generator) -> None:
    x, y = rng.integers(-5, 6, 2).tolist()
    draw.rounded_rectangle((100 + x, 90 + y, 200 + x, 380 + y), 20, fill="#d8e4e0", outline="black", width=3)
    draw.rectangle((125 + x, 30 + y, 175 + x, 92 + y), fill="#403830")
    draw.rectangle((103 + x, 180 + y, 197 + x, 310 + y), fill=COLORS[sort])
    draw.text((115 + x, 225 + y), WORDS[sort], fill="white", font_size=26)
    for line in range(6):
        draw.line((110 + x, 260 + 7 * line + y, 190 + x, 260 + 7 * line + y), fill="white", width=2)


def _coin(draw: ImageDraw.ImageDraw, sort: int, rng: np.random.Generator) -> None:
    x, y = (np.array([150, 200]) + rng.integers(-5, 6, 2)).tolist()
    metal, edge = (("#b87333", "#8c5420"), ("#b87333", "#8c5420"), ("#d4b04c", "#9c7c28"), ("#c0c0c4", "#88888c"))[sort]
    draw.circle((x, y), 120, fill=metal, outline=edge, width=8)
    for notch in range(60):
        angle = notch * np.pi / 30
        ends = [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for radius in (104, 110)]
        draw.line(ends, fill=edge, width=3)
    draw.text((x, y), ("1", "2", "5", "10")[sort], fill=edge, font_size=120, anchor="mm")


def _swatch(draw: ImageDraw.ImageDraw, sort: int, rng: np.random.Generator) -> None:
    color = np.array(((200, 30, 30), (30, 180, 40), (30, 40, 200), (240, 240, 235))[sort]) + rng.integers(-14, 15, 3)
    draw.rectangle((0, 0, *SIZE), fill=tuple(color.clip(0, 255).tolist()))


def _logo(draw: ImageDraw.ImageDraw, sort: int, rng: np.random.Generator) -> None:
    color = tuple(rng.integers(0, 200, 3).tolist())
    if sort == 0:
        draw.circle((150, 180), 90, fill=color)
    else:
        draw.regular_polygon((150, 180, 100), (0, 3, 4, 6)[sort], fill=color)
    draw.text((150, 330), "ACME", fill="black", font_size=48, anchor="mm")


def _page(draw: ImageDraw.ImageDraw, sort: int, rng: np.random.Generator) -> None:
    draw.text((30, 20), f"{WORDS[sort]} {rng.integers(1000)}", fill="black", font_size=22)
    letters = np.array(list("abcdefghiklmnoprstuvw    "))
    for y in range(60, 380, 16):
        draw.text((30, y), "".join(rng.choice(letters, 36)), fill="black", font_size=12)


SETS: dict[str, Draw] = {"bottle": _bottle, "coin": _coin, "swatch": _swatch, "logo": _logo, "page": _page}


def draw_same_layout(name: str, sort: int, number: int) -> Image.Image:
    """Return an image of one class of a set.

    Args:
        name: of SETS.
        sort: number of the class in its set, 0 to 3.
        number: of the image; it decides place, light and noise.

    """
    rng = np.random.default_rng([list(SETS).index(name), sort, number])
    image = Image.new("RGB", SIZE, "white")
    SETS[name](ImageDraw.Draw(image), sort, rng)
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), np.float64) * rng.uniform(0.94, 1) + rng.normal(
        0, 1, (SIZE[1], SIZE[0], 3)
    )
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_same_layout(folder: Path) -> None:
    """Write IMAGES_PER_CLASS images of each class of each set as `<set>-<sort>/<number>.png`."""
    for name in SETS:
        for sort in range(len(COLORS)):
            (folder / f"{name}-{sort}").mkdir(parents=True)
            for number in range(IMAGES_PER_CLASS):
                draw_same_layout(name, sort, number).save(folder / f"{name}-{sort}" / f"{number}.png")

"""The registry of figures, and the colors and primitives that all figures share."""

import io
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from deeprank.data.catalogue import Catalogue

CORRECT_COLOR, WRONG_COLOR, NEUTRAL_COLOR = "#2e8b57", "#c0392b", "#555555"
TEXT_COLOR, BAR_COLOR = "#222222", "#4c78a8"
TILE_PX = 128
MAX_MAP_POINTS = 1000

# The caption of each figure, by the name under which a step reports it.
CAPTIONS: dict[str, str] = {}

Draw = TypeVar("Draw", bound=Callable[..., Figure])


def register_figure(name: str, caption: str) -> Callable[[Draw], Draw]:
    """Return a decorator that registers the caption of the figure that a function draws.

    Args:
        name: of the figure, as in `Reporter.figure` and in MLflow's `figures/<name>.png`.
        caption: of the figure, in one or two sentences.

    Raises:
        ValueError: another figure has this name.

    """
    if name in CAPTIONS:
        raise ValueError(f"two figures have the name {name!r}")
    CAPTIONS[name] = caption
    return lambda draw: draw


def draw_tile(axes: Axes, jpeg: bytes, title: str, color: str) -> None:
    """Draw the center square of an image into axes, with a colored frame and a title."""
    image = Image.open(io.BytesIO(jpeg))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    axes.imshow(image.crop((left, top, left + side, top + side)).resize((TILE_PX, TILE_PX)))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(color)
        spine.set_linewidth(3)
    axes.set_title(title, fontsize=7, color=TEXT_COLOR, pad=3)


def short_label(label: str) -> str:
    """Return the last folder of a label or path, cut to 22 characters, for a caption."""
    name = label.rsplit("/", 1)[-1]
    name = name if len(name) <= 22 else name[:21] + "…"
    return escape_mathtext(name)


def escape_mathtext(text: str) -> str:
    """Return text with its dollar signs escaped: Matplotlib renders text between two dollar signs as math."""
    return text.replace("$", r"\$")


def first_per_class(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first `count` rows of a table, taking one row of each class before a second row of any class.

    Args:
        table: with a column `label`, best rows first.
        count: number of rows returned at most.

    """
    turn = table.groupby("label", sort=False).cumcount()
    return table.iloc[np.argsort(turn, kind="stable")[:count]]


def blank_grid(rows: int, columns: int, title: str) -> tuple[Figure, npt.NDArray[Any]]:
    """Return a figure and its (rows, columns) axes without frames."""
    figure = Figure(figsize=(columns * 1.45, rows * 1.65 + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11, color=TEXT_COLOR)
    axes: npt.NDArray[Any] = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def draw_image_rows(catalogue: Catalogue, rows: Sequence[Sequence[tuple[int, str, str]]], title: str) -> Figure:
    """Draw a grid of images.

    Args:
        catalogue: that holds the images.
        rows: of cells (row of the catalogue's frame, caption, color of the frame).
        title: of the figure.

    """
    figure, axes = blank_grid(len(rows), max(len(row) for row in rows), title)
    jpegs = iter(catalogue.read_jpegs([cell[0] for row in rows for cell in row]))
    for axes_row, row in zip(axes, rows, strict=True):
        for axis, (_, caption, color) in zip(axes_row, row, strict=False):
            axis.set_axis_on()
            draw_tile(axis, next(jpegs), caption, color)
    return figure

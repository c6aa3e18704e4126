"""Colors and primitives that all figures share."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from deeprank.data.catalogue import Catalogue

RIGHT, WRONG, NEUTRAL = "#2e8b57", "#c0392b", "#555555"
INK, BAR = "#222222", "#4c78a8"
TILE = 128
# Points of a map at most.
MAP_POINTS = 1000


def draw_tile(axes: Axes, jpeg: bytes, title: str, color: str) -> None:
    """Draw the middle square of an image into axes, with a colored frame and a title."""
    image = Image.open(io.BytesIO(jpeg))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    axes.imshow(image.crop((left, top, left + side, top + side)).resize((TILE, TILE)))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(color)
        spine.set_linewidth(3)
    axes.set_title(title, fontsize=7, color=INK, pad=3)


def short_label(label: str) -> str:
    """Return the last folder of a label or path, cut to 22 characters, for a caption."""
    name = label.rsplit("/", 1)[-1]
    name = name if len(name) <= 22 else name[:21] + "…"
    # Between dollars Matplotlib would set a formula.
    return name.replace("$", r"\$")


def first_per_class(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first `count` rows, each class once before any class comes again."""
    turn = table.groupby("label", sort=False).cumcount()
    return table.iloc[np.argsort(turn, kind="stable")[:count]]


def blank_grid(rows: int, columns: int, title: str) -> tuple[Figure, npt.NDArray[Any]]:
    """Return a figure of rows x columns axes without frames."""
    figure = Figure(figsize=(columns * 1.45, rows * 1.65 + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    axes: npt.NDArray[Any] = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def draw_image_rows(catalogue: Catalogue, rows: Sequence[Sequence[tuple[int, str, str]]], title: str) -> Figure:
    """Draw a grid; each cell is (row of the catalogue, caption, color of the frame)."""
    figure, axes = blank_grid(len(rows), max(len(row) for row in rows), title)
    jpegs = iter(catalogue.images([cell[0] for row in rows for cell in row]))
    for line, row in zip(axes, rows, strict=True):
        for axis, (_, caption, color) in zip(line, row, strict=False):
            axis.set_axis_on()
            draw_tile(axis, next(jpegs), caption, color)
    return figure

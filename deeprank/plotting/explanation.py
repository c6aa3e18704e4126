"""Figures of similarity maps: what makes two images similar, drawn over the images."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.style import (
    CORRECT_COLOR,
    NEUTRAL_COLOR,
    TEXT_COLOR,
    WRONG_COLOR,
    escape_mathtext,
    register_figure,
    short_label,
)

SimilarityMap = npt.NDArray[np.float32]
OVERLAY_PX = 384
MAX_NAME_LENGTH = 40


@dataclass(frozen=True)
class ExplainedPair:
    """A query and its first neighbor with their similarity maps.

    Attributes:
        query, neighbor: rows of the catalogue's frame.
        distance: of the two embeddings, 0 to 2.
        query_map, neighbor_map: (h, w) contribution of each region to the similarity.

    """

    query: int
    neighbor: int
    distance: float
    query_map: SimilarityMap
    neighbor_map: SimilarityMap


def overlay(jpeg: bytes, contributions: SimilarityMap) -> Image.Image:
    """Draw a similarity map over the center square of its image: bright where a region adds similarity, gray elsewhere.

    The color scale is the same for all pairs of images. Regions with a negative contribution are gray too.

    Args:
        jpeg: the stored image.
        contributions: (h, w) contribution of each region.

    Returns:
        RGB image of OVERLAY_PX x OVERLAY_PX.

    """
    # 1 is the mean contribution of a region of an image compared with itself.
    strength = 1 - np.exp(-np.clip(contributions * contributions.size, 0, None))
    resized = Image.fromarray(strength.astype(np.float32)).resize((OVERLAY_PX, OVERLAY_PX), Image.Resampling.BICUBIC)
    heat = np.asarray(resized).clip(0, 1)
    gray = np.asarray(center_square(jpeg).convert("L"), dtype=np.float32)[..., None] / 255
    # The color is multiplied by the image's brightness, so that text stays legible. The darkest colors would look like shadows.
    color = colormaps["inferno"](0.3 + 0.65 * heat)[..., :3] * (0.4 + 0.8 * gray)
    blended = 0.6 * gray * (1 - heat[..., None]) + color * heat[..., None]
    return Image.fromarray(np.rint(255 * blended.clip(0, 1)).astype(np.uint8))


def overlay_png(jpeg: bytes, contributions: SimilarityMap) -> bytes:
    """Return `overlay` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    overlay(jpeg, contributions).save(buffer, "PNG")
    return buffer.getvalue()


def explanation_figure(
    jpegs: tuple[bytes, bytes], maps: tuple[SimilarityMap, SimilarityMap], distance: float, names: tuple[str, str] = ("", "")
) -> Figure:
    """Draw two stored images side by side, with the similarity map of each below it.

    Args:
        jpegs: the two stored images.
        maps: their similarity maps.
        distance: of their embeddings, 0 to 2.
        names: titles of the images; the last 40 characters are drawn.

    """
    figure = Figure(figsize=(7, 7.7), layout="constrained")
    figure.suptitle(f"Distance {distance:.2f} (0: identical, 2: opposite)", fontsize=13, color=TEXT_COLOR)
    axes: npt.NDArray[Any] = figure.subplots(2, 2)
    for column, jpeg, contributions, name in zip(axes.T, jpegs, maps, names, strict=True):
        _draw_image(column[0], center_square(jpeg), escape_mathtext(name[-MAX_NAME_LENGTH:]))
        _draw_image(column[1], overlay(jpeg, contributions), "")
    figure.supxlabel("A brighter region adds more to the similarity; a gray region adds nothing.", fontsize=10, color=TEXT_COLOR)
    return figure


@register_figure(
    "explained",
    "Queries with the shortest distance to their first neighbor: correct first neighbors on the left, wrong ones on the right. "
    "A brighter region adds more to the similarity of the two images.",
)
def explained_pairs(
    catalogue: Catalogue, correct: Sequence[ExplainedPair], wrong: Sequence[ExplainedPair], num_correct: int, num_wrong: int
) -> Figure:
    """Draw queries and their first neighbors with similarity maps, one pair per row: correct on the left, wrong on the right.

    Args:
        catalogue: that holds the images.
        correct, wrong: the pairs drawn.
        num_correct, num_wrong: number of all queries with a correct and with a wrong first neighbor, for the titles.

    """
    num_rows = max(1, len(correct), len(wrong))
    figure = Figure(figsize=(11.4, num_rows * 1.6 + 0.6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, wspace=0.04)
    for half, pairs, kind, total, color in (
        (halves[0], correct, "correct", num_correct, CORRECT_COLOR),
        (halves[1], wrong, "wrong", num_wrong, WRONG_COLOR),
    ):
        half.suptitle(f"{len(pairs)} of {total:,} {kind} first neighbors, shortest distance first", fontsize=11, color=TEXT_COLOR)
        _draw_pairs(half, catalogue, pairs, num_rows, color)
    return figure


def _draw_pairs(half: SubFigure, catalogue: Catalogue, pairs: Sequence[ExplainedPair], num_rows: int, color: str) -> None:
    axes: npt.NDArray[Any] = half.subplots(num_rows, 4, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    if not pairs:
        half.text(0.5, 0.5, "none", ha="center", va="center", fontsize=10, color=NEUTRAL_COLOR)
    labels = catalogue.frame["label"]
    for axes_row, pair in zip(axes, pairs, strict=False):
        query, neighbor = catalogue.read_jpegs([pair.query, pair.neighbor])
        _draw_image(axes_row[0], center_square(query), f"query\n{short_label(labels[pair.query])}", NEUTRAL_COLOR)
        _draw_image(axes_row[1], overlay(query, pair.query_map), "", NEUTRAL_COLOR)
        _draw_image(axes_row[2], overlay(neighbor, pair.neighbor_map), "", color)
        _draw_image(axes_row[3], center_square(neighbor), f"{pair.distance:.2f}\n{short_label(labels[pair.neighbor])}", color)


def center_square(jpeg: bytes) -> Image.Image:
    """Return the center square of a stored image, which is what the model embeds, as RGB of OVERLAY_PX x OVERLAY_PX."""
    with Image.open(io.BytesIO(jpeg)) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.convert("RGB").resize((OVERLAY_PX, OVERLAY_PX), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _draw_image(axes: Axes, image: Image.Image, caption: str, color: str | None = None) -> None:
    axes.set_axis_on()
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(color is not None)
        spine.set_color(color or TEXT_COLOR)
        spine.set_linewidth(2.5)
    axes.set_title(caption, fontsize=7 if color else 10, color=TEXT_COLOR, pad=3)

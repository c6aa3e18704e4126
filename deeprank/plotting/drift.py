"""Figures of drift: the new images that are farthest from the train images, and the drift of each class."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.style import (
    CORRECT_COLOR,
    NEUTRAL_COLOR,
    WRONG_COLOR,
    draw_image_rows,
    first_per_class,
    register_figure,
    short_label,
)
from deeprank.row_numbers import CatalogueRows

MAX_PAIRS, PAIRS_PER_ROW = 12, 3
MAX_CLASSES = 60


@register_figure("drift", "The new images that are farthest from the champion's train images, each beside the nearest of these.")
def farthest_pairs(catalogue: Catalogue, new_rows: CatalogueRows, nearest_ids: Sequence[str], distances: npt.NDArray[np.float64]) -> Figure:
    """Draw the new images that are farthest from their nearest train image, first one of each class, each beside that train image.

    Args:
        catalogue: of the new images; a train image that it no longer has is left out.
        new_rows: (n,) of the new images.
        nearest_ids: (n,) ids of their nearest train images.
        distances: (n,) to these.

    """
    labels = catalogue.frame["label"]
    row_of_id = {image: row for row, image in enumerate(catalogue.frame["id"])}
    farthest = np.argsort(-distances, kind="stable")
    candidates = pd.DataFrame({"label": labels.to_numpy()[new_rows[farthest]], "position": farthest})
    pairs = []
    for label, position in first_per_class(candidates, MAX_PAIRS).itertuples(index=False):
        nearest_row = row_of_id.get(nearest_ids[position])
        title = "new" if nearest_row is not None else "new (its nearest was removed)"
        pair = [(int(new_rows[position]), f"{title}\n{short_label(label)}", NEUTRAL_COLOR)]
        if nearest_row is not None:
            nearest_label = labels[nearest_row]
            color = CORRECT_COLOR if nearest_label == label else WRONG_COLOR
            pair.append((nearest_row, f"nearest, at {distances[position]:.2f}\n{short_label(nearest_label)}", color))
        pairs.append(pair)
    grid = [[cell for pair in pairs[i : i + PAIRS_PER_ROW] for cell in pair] for i in range(0, len(pairs), PAIRS_PER_ROW)]
    return draw_image_rows(catalogue, grid, f"The farthest of {len(new_rows):,} new images from the champion's train images")


@register_figure("drift_classes", "How far the new images of each class are from its train images. Red classes have drifted.")
def class_drift_bars(per_class: pd.DataFrame, alpha: float) -> Figure:
    """Draw the statistic of each tested class, the greatest on top, those that drifted in red; at most 60 classes.

    Args:
        per_class: columns label, new, reference, statistic and p_adjusted, greatest statistic first.
        alpha: significance level of the adjusted p-values.

    """
    table = per_class.head(MAX_CLASSES).iloc[::-1]
    figure = Figure(figsize=(7, max(2.0, 0.19 * len(table) + 1.0)), layout="constrained")
    axes = figure.subplots()
    drifted = (table["p_adjusted"] < alpha).to_numpy()
    y = np.arange(len(table))
    for rows, color, name in ((drifted, WRONG_COLOR, f"drifted (adjusted p < {alpha})"), (~drifted, NEUTRAL_COLOR, "not significant")):
        if rows.any():
            axes.barh(y[rows], table["statistic"][rows], color=color, label=name)
    axes.set_yticks(y, [f"{short_label(row.label)} ({row.new} new, {row.reference})" for row in table.itertuples()], fontsize=6.5)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel("distance of the new images of a class from its train images (MMD²)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    return figure

"""Figures of the promotion gate."""

from typing import Any

import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure, SubFigure

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.style import (
    CORRECT_COLOR,
    NEUTRAL_COLOR,
    TEXT_COLOR,
    WRONG_COLOR,
    draw_tile,
    first_per_class,
    register_figure,
    short_label,
)


@register_figure(
    "gained_and_lost",
    "Queries whose first neighbor is correct with the new model only (gained) or with the champion only (lost). "
    "A green frame marks the correct class.",
)
def gained_and_lost(
    catalogue: Catalogue,
    challenger: pd.DataFrame,
    champion: pd.DataFrame,
    champion_name: str = "champion",
    challenger_name: str = "new model",
    count: int = 6,
    seed: int = 0,
) -> Figure:
    """Draw queries whose first neighbor became correct (gained) and queries whose first neighbor became wrong (lost).

    Args:
        catalogue: that holds the images.
        challenger, champion: one row per query: row, label, fine.recall_at_1, and nearest, the row of the first neighbor.
        champion_name, challenger_name: captions of the first neighbors.
        count: number of queries of each kind at most, spread over the classes.
        seed: of the random choice.

    """
    both = challenger[["row", "label", "fine.recall_at_1", "nearest"]].merge(
        champion[["row", "fine.recall_at_1", "nearest"]], on="row", suffixes=("", ".champion")
    )
    change = both["fine.recall_at_1"] - both["fine.recall_at_1.champion"]
    kinds = {"Gained": both[change > 0], "Lost": both[change < 0]}
    samples = {name: first_per_class(table.sample(frac=1, random_state=seed), count) for name, table in kinds.items()}
    num_rows = max(1, *map(len, samples.values()))
    figure = Figure(figsize=(9.4, num_rows * 1.65 + 0.6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, wspace=0.08)
    for half, (name, table) in zip(halves, kinds.items(), strict=True):
        half.suptitle(f"{name}: {len(table):,} of {change.notna().sum():,} queries", fontsize=11, color=TEXT_COLOR)
        _draw_changes(half, catalogue, samples[name], num_rows, champion_name, challenger_name)
    return figure


def _draw_changes(
    half: SubFigure, catalogue: Catalogue, sample: pd.DataFrame, num_rows: int, champion_name: str, challenger_name: str
) -> None:
    axes: npt.NDArray[Any] = half.subplots(num_rows, 3, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    if not len(sample):
        axes[0, 1].text(0.5, 0.5, "none", ha="center", va="center", fontsize=10, color=NEUTRAL_COLOR)
    labels = catalogue.frame["label"]
    columns = sample[["row", "label", "nearest", "nearest.champion"]]
    for axes_row, (query, label, new, old) in zip(axes, columns.itertuples(index=False, name=None), strict=False):
        cells = {"query": query, champion_name: old, challenger_name: new}
        for axis, jpeg, (caption, row) in zip(axes_row, catalogue.read_jpegs(list(cells.values())), cells.items(), strict=True):
            color = NEUTRAL_COLOR if caption == "query" else CORRECT_COLOR if labels[row] == label else WRONG_COLOR
            axis.set_axis_on()
            draw_tile(axis, jpeg, f"{caption}\n{short_label(labels[row])}", color)

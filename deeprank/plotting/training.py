"""Figures of a training."""

import pandas as pd
from matplotlib.figure import Figure

from deeprank.plotting.style import register_figure


@register_figure("curves", "Each training metric by epoch.")
def curves(points: pd.DataFrame) -> Figure:
    """Draw a panel for each metric over the epochs.

    Args:
        points: columns name, value, step (the epoch).

    """
    names = list(dict.fromkeys(points["name"]))
    figure = Figure(figsize=(3.4 * len(names), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        curve = points[points["name"] == name]
        axes.plot(curve["step"], curve["value"], marker="o", markersize=3)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure

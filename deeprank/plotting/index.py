"""The figure of the index: recall against latency of the measured search parameters."""

import pandas as pd
from matplotlib.figure import Figure

from deeprank.plotting.style import BAR_COLOR, CORRECT_COLOR, NEUTRAL_COLOR, register_figure

KIND_MARKERS = {"exact": "s", "ivf_flat": "o", "two_level_ivf": "v", "hnsw": "D", "ivf_pq": "^", "lance": "P"}


@register_figure(
    "index_autotune",
    "Recall@10 against the latency of a query, for each kind and parameters measured. The chosen ones have a ring, the line joins "
    "those that no others beat in both.",
)
def autotune_curve(measurements: pd.DataFrame, chosen: str, min_recall: float) -> Figure:
    """Draw recall@10 against latency for each SearchParams measured.

    Args:
        measurements: columns search_params (in words), kind, recall_at_10, latency_ms and pareto_optimal.
        chosen: the chosen search parameters in words.
        min_recall: the required recall@10.

    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker in KIND_MARKERS.items():
        rows = measurements[measurements["kind"] == kind]
        axes.scatter(rows["latency_ms"], rows["recall_at_10"], marker=marker, s=26, label=kind, alpha=0.8)
    front = measurements[measurements["pareto_optimal"]].sort_values("latency_ms")
    axes.plot(front["latency_ms"], front["recall_at_10"], color=NEUTRAL_COLOR, linewidth=1, zorder=0)
    axes.axhline(min_recall, color=BAR_COLOR, linestyle=":", linewidth=1)
    best = measurements[measurements["search_params"] == chosen].iloc[0]
    latency, recall = best["latency_ms"], best["recall_at_10"]
    axes.scatter([latency], [recall], s=170, facecolors="none", edgecolors=CORRECT_COLOR, linewidths=2)
    axes.annotate(chosen, (latency, recall), xytext=(8, -14), textcoords="offset points", fontsize=9, color=CORRECT_COLOR)
    axes.set_xscale("log")
    axes.set_xlabel("latency of a single query in milliseconds")
    axes.set_ylabel("recall@10")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure

"""Figures of an evaluation: recall by rank, confused classes, neighbors, classes and the embedding space."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.style import (
    BAR_COLOR,
    CORRECT_COLOR,
    MAX_MAP_POINTS,
    NEUTRAL_COLOR,
    TEXT_COLOR,
    WRONG_COLOR,
    draw_image_rows,
    first_per_class,
    register_figure,
    short_label,
)

MAX_CLASS_BARS = 100
# Classes named in the map of embeddings: the most frequent ones.
MAX_NAMED_CLASSES = 50
RANK_TICKS = (1, 2, 5, 10, 20, 50)


@register_figure("recall_curve", "Recall@k: the share of queries with an image of their class among the first k neighbors.")
def recall_curve(ranks: Mapping[str, npt.NDArray[np.float64]], max_rank: int) -> Figure:
    """Draw recall@k for k = 1 … max_rank, one line per model.

    Args:
        ranks: by name of the model, the rank of the first neighbor of each query's class, as of `first_hit_ranks`.
        max_rank: largest k.

    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    k = np.arange(1, max_rank + 1)
    for name, hit_ranks in ranks.items():
        answerable = np.sort(hit_ranks[~np.isnan(hit_ranks)])
        recall = np.searchsorted(answerable, k, side="right") / max(1, len(answerable))
        axes.plot(k, recall, marker="o", markersize=2.5, label=name)
    axes.set_xscale("log")
    ticks = [tick for tick in RANK_TICKS if tick <= max_rank]
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(top=1.005)
    axes.set_xlabel("k")
    axes.set_ylabel("recall@k")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure


@register_figure(
    "confusion",
    "The most frequent confusions: queries whose first neighbor is of another class. "
    "Red bars are confusions between classes of different parent folders.",
)
def confusion(queries: pd.DataFrame, predicted: Sequence[str], count: int = 20) -> Figure:
    """Draw the most frequent pairs of confused classes, one bar per pair.

    Args:
        queries: columns label and fine.recall_at_1; queries whose class the gallery lacks (NaN) are excluded.
        predicted: (len(queries),) class of the first neighbor of each query.
        count: number of pairs drawn at most.

    """
    table = queries[["label"]].assign(predicted=list(predicted))[queries["fine.recall_at_1"].notna()]
    wrong = table[table["label"] != table["predicted"]]
    queries_of = table["label"].value_counts()
    pairs = wrong.value_counts(["label", "predicted"]).rename("times").reset_index()
    pairs["share"] = pairs["times"] / queries_of[pairs["label"]].to_numpy()
    top_pairs = pairs.sort_values(["times", "share"], ascending=False, kind="stable").head(count).iloc[::-1]
    figure = Figure(figsize=(7.5, max(1.6, 0.27 * len(top_pairs) + 1.1)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{len(wrong):,} of {len(table):,} queries have a first neighbor of another class", fontsize=11, color=TEXT_COLOR)
    if len(top_pairs):
        _draw_pair_bars(axes, top_pairs, queries_of)
    else:
        axes.set_axis_off()
    return figure


def _draw_pair_bars(axes: Axes, pairs: pd.DataFrame, queries_of: pd.Series) -> None:
    same_parent = np.array([p.label.rpartition("/")[0] == p.predicted.rpartition("/")[0] for p in pairs.itertuples()])
    for mask, color, name in ((same_parent, BAR_COLOR, "same parent folder"), (~same_parent, WRONG_COLOR, "different parent folders")):
        if mask.any():
            axes.barh(np.flatnonzero(mask), pairs["times"][mask], color=color, label=name)
    for y, pair in enumerate(pairs.itertuples()):
        axes.text(pair.times, y, f" {pair.times} of {queries_of[pair.label]}", va="center", fontsize=7.5, color=TEXT_COLOR)
    names = [f"{short_label(p.label)}  →  {short_label(p.predicted)}" for p in pairs.itertuples()]
    axes.set_yticks(np.arange(len(pairs)), names, fontsize=8)
    axes.set_xlim(0, float(pairs["times"].max()) * 1.15)
    axes.set_ylim(-0.6, len(pairs) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("queries", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="class  →  class of the first neighbor", fontsize=8, title_fontsize=8, loc="lower right", frameon=False)


@register_figure(
    "neighbor_gallery",
    "The best and the worst queries with their nearest neighbors. A green frame marks the correct class, a red frame a wrong one.",
)
def neighbor_gallery(
    catalogue: Catalogue,
    queries: pd.DataFrame,
    neighbors: npt.NDArray[np.int64],
    distances: npt.NDArray[np.float64],
    count: int = 6,
    seed: int = 0,
) -> Figure:
    """Draw the best queries, and the worst queries whose first neighbor is of another class, with their neighbors.

    Args:
        catalogue: that holds the images.
        queries: columns row, label, fine.recall_at_1, fine.map_at_r.
        neighbors: (len(queries), k) rows of the nearest gallery images of each query, nearest first.
        distances: (len(queries), k) to these images.
        count: number of queries of each kind at most, spread over the classes.
        seed: of the choice among equally good queries.

    """
    positions = pd.Series(np.arange(len(queries)), index=queries.index)
    ranked = queries.assign(position=positions).sample(frac=1, random_state=seed).sort_values("fine.map_at_r", kind="stable")
    worst = first_per_class(ranked[ranked["fine.recall_at_1"] == 0], count)
    best = first_per_class(ranked[ranked["fine.recall_at_1"] == 1].iloc[::-1], count)
    if not len(best) + len(worst):
        return Figure()
    labels = catalogue.frame["label"]
    cells = []
    for row, position in zip([*best["row"], *worst["row"]], [*best["position"], *worst["position"]], strict=True):
        cells_of_query = [(int(row), f"query\n{short_label(labels[row])}", NEUTRAL_COLOR)]
        for neighbor, distance in zip(neighbors[position], distances[position], strict=True):
            color = CORRECT_COLOR if labels[neighbor] == labels[row] else WRONG_COLOR
            cells_of_query.append((int(neighbor), f"{distance:.2f}\n{short_label(labels[neighbor])}", color))
        cells.append(cells_of_query)
    title = f"The {len(best)} best and the {len(worst)} worst queries with their nearest neighbors (distance)"
    return draw_image_rows(catalogue, cells, title)


@register_figure("per_class", "Recall@1 of each class, lowest first; the number of queries of the class in brackets.")
def per_class_bars(per_class: pd.DataFrame) -> Figure:
    """Draw recall@1 of each class, lowest on top, with the number of queries; at most the 100 lowest classes.

    Args:
        per_class: columns label, queries, fine.recall_at_1, and optionally fine.recall_at_1.low and .high.

    """
    table = per_class.head(MAX_CLASS_BARS).iloc[::-1]
    has_intervals = "fine.recall_at_1.low" in table
    figure = Figure(figsize=(7, max(2.5, 0.17 * len(table) + 0.8)), layout="constrained")
    axes = figure.subplots()
    axes.barh(np.arange(len(table)), table["fine.recall_at_1"], color=BAR_COLOR)
    if has_intervals:
        bounds = table["fine.recall_at_1.low"], table["fine.recall_at_1.high"]
        axes.hlines(np.arange(len(table)), *bounds, color=TEXT_COLOR, linewidth=0.8, alpha=0.6)
    for y in np.flatnonzero(table["fine.recall_at_1"].isna()):
        axes.text(0.005, float(y), "no image of this class in the gallery", va="center", fontsize=6, color=NEUTRAL_COLOR)
    axes.set_yticks(np.arange(len(table)), [f"{short_label(r.label)} ({r.queries})" for r in table.itertuples()], fontsize=6.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel("recall@1, 95 % interval (queries)" if has_intervals else "recall@1 (queries)")
    axes.spines[["top", "right"]].set_visible(False)
    if len(per_class) > len(table):
        axes.set_title(f"The {len(table)} of {len(per_class):,} classes with the lowest recall@1", fontsize=11, color=TEXT_COLOR)
    return figure


@register_figure("embedding_map", "The embeddings of the test images in two dimensions (t-SNE). Similar images are close together.")
def embedding_map(embeddings: npt.NDArray[np.float32], labels: Sequence[str], seed: int = 0) -> Figure:
    """Draw embeddings in two dimensions by t-SNE, colored by top-level folder, with class names at the class medians.

    Args:
        embeddings: (n, d); of more than 1,000 a random sample is drawn.
        labels: (n,) class of each embedding.
        seed: of the sample and of t-SNE.

    """
    from sklearn.manifold import TSNE

    if len(embeddings) < 3:
        return Figure()
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(len(embeddings))[:MAX_MAP_POINTS])
    names = np.array(labels)[sample]
    perplexity = min(30.0, max(2.0, (len(sample) - 1) / 4))
    points = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed).fit_transform(embeddings[sample])
    top_folders = np.array([name.split("/")[0] for name in names])
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    colors = {folder: f"C{i % 10}" for i, folder in enumerate(np.unique(top_folders))}
    for folder, color in colors.items():
        mask = top_folders == folder
        axes.scatter(points[mask, 0], points[mask, 1], s=9, color=color, alpha=0.65, label=folder, linewidths=0)
    for name in pd.Series(names).value_counts().index[:MAX_NAMED_CLASSES]:
        x, y = np.median(points[names == name], axis=0)
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.7}
        axes.annotate(short_label(str(name)), (x, y), fontsize=6.5, ha="center", va="center", bbox=box)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{len(sample)} images, t-SNE of their embeddings", fontsize=11)
    if len(colors) <= 10:
        axes.legend(markerscale=2, fontsize=8, loc="lower left")
    return figure

"""Pictures of triplets, neighbors, classes and the embedding space."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.neighbors import DEPTH, neighbors
from deeprank.plotting.style import BAR, INK, MAP_POINTS, NEUTRAL, RIGHT, WRONG, draw_image_rows, draw_tile, first_per_class, short_label

CLASSES_SHOWN = 100


def triplet_grid(catalogue: Catalogue, triplets: pd.DataFrame, count: int = 8, seed: int = 0) -> Figure:
    """Draw random triplets, one a line: query, positive, negative."""
    chosen = triplets.sample(min(count, len(triplets)), random_state=seed)
    labels = catalogue.frame["label"]
    rows = [
        [
            (int(t.query), f"query\n{short_label(labels[t.query])}", NEUTRAL),
            (int(t.positive), f"positive ({t.relevance_positive:.2g})\n{short_label(labels[t.positive])}", RIGHT),
            (int(t.negative), f"negative ({t.relevance_negative:.2g})\n{short_label(labels[t.negative])}", WRONG),
        ]
        for t in chosen[["query", "positive", "negative", "relevance_positive", "relevance_negative"]].itertuples(index=False)
    ]
    half = -(-len(rows) // 2)
    pairs = [rows[i] + (rows[i + half] if i + half < len(rows) else []) for i in range(half)]
    return draw_image_rows(catalogue, pairs, "Triplets: query, positive, negative (relevance)")


def image_grid(catalogue: Catalogue, count: int = 32, seed: int = 0) -> Figure:
    """Draw random images with their classes."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(catalogue.frame))[:count])
    cells = [(int(row), short_label(catalogue.frame["label"][row]), NEUTRAL) for row in rows]
    return draw_image_rows(catalogue, [cells[i : i + 8] for i in range(0, len(cells), 8)], f"{len(catalogue.frame):,} images, some of them")


def neighbor_gallery(
    catalogue: Catalogue,
    embeddings: npt.NDArray[np.float32],
    queries: pd.DataFrame,
    gallery: npt.NDArray[np.int64],
    count: int = 6,
    seed: int = 0,
) -> Figure:
    """Draw the neighbors of the queries that find their class best, and of the worst that do not find it first.

    Args:
        catalogue: where the images are.
        embeddings: (len(frame), d) of unit length.
        queries: columns row, label, fine.recall_at_1, fine.map_at_r.
        gallery: rows searched.
        count: of queries of each kind, of as many classes as there are.
        seed: which of several equally good ones.

    """
    ranked = queries.sample(frac=1, random_state=seed).sort_values("fine.map_at_r", kind="stable")
    worst = first_per_class(ranked[ranked["fine.recall_at_1"] == 0], count)
    best = first_per_class(ranked[ranked["fine.recall_at_1"] == 1].iloc[::-1], count)
    rows = np.array([*best["row"], *worst["row"]], dtype=np.int64)
    if not len(rows):
        return Figure()
    labels = catalogue.frame["label"]
    lines = []
    for row, found in zip(rows, neighbors(embeddings, rows, gallery, 6), strict=True):
        line = [(int(row), f"query\n{short_label(labels[row])}", NEUTRAL)]
        for other in found:
            distance = float(np.linalg.norm(embeddings[other] - embeddings[row]))
            line.append((int(other), f"{distance:.2f}\n{short_label(labels[other])}", RIGHT if labels[other] == labels[row] else WRONG))
        lines.append(line)
    return draw_image_rows(catalogue, lines, f"The {len(best)} best queries, and the {len(worst)} worst; of each the nearest (distance)")


def gained_and_lost(
    catalogue: Catalogue,
    after: pd.DataFrame,
    before: pd.DataFrame,
    before_name: str = "frozen net",
    after_name: str = "new model",
    count: int = 6,
    seed: int = 0,
) -> Figure:
    """Draw queries whose first neighbor became right (gained), and those whose became wrong (lost).

    Args:
        catalogue: where the images are.
        after, before: a row a query: row, label, fine.recall_at_1, and nearest, the row of its first neighbor.
        before_name, after_name: captions of the first neighbors.
        count: of queries of each kind, of as many classes as there are.
        seed: which of them.

    """
    both = after[["row", "label", "fine.recall_at_1", "nearest"]].merge(
        before[["row", "fine.recall_at_1", "nearest"]], on="row", suffixes=("", ".before")
    )
    change = both["fine.recall_at_1"] - both["fine.recall_at_1.before"]
    kinds = {"Gained": both[change > 0], "Lost": both[change < 0]}
    chosen = {name: first_per_class(table.sample(frac=1, random_state=seed), count) for name, table in kinds.items()}
    lines = max(1, *map(len, chosen.values()))
    figure = Figure(figsize=(9.4, lines * 1.65 + 0.6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, wspace=0.08)
    for half, (name, table) in zip(halves, kinds.items(), strict=True):
        half.suptitle(f"{name}: {len(table):,} of {change.notna().sum():,} queries", fontsize=11, color=INK)
        _draw_changes(half, catalogue, chosen[name], lines, before_name, after_name)
    return figure


def _draw_changes(half: SubFigure, catalogue: Catalogue, table: pd.DataFrame, lines: int, before_name: str, after_name: str) -> None:
    axes: npt.NDArray[Any] = half.subplots(lines, 3, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    if not len(table):
        axes[0, 1].text(0.5, 0.5, "none", ha="center", va="center", fontsize=10, color=NEUTRAL)
    labels = catalogue.frame["label"]
    for line, query in zip(axes, table.itertuples(index=False), strict=False):
        cells = {"query": query[0], before_name: query[5], after_name: query[3]}
        for axis, jpeg, (caption, row) in zip(line, catalogue.images(list(cells.values())), cells.items(), strict=True):
            color = NEUTRAL if caption == "query" else RIGHT if labels[row] == query[1] else WRONG
            axis.set_axis_on()
            draw_tile(axis, jpeg, f"{caption}\n{short_label(labels[row])}", color)


def confusion(queries: pd.DataFrame, predicted: Sequence[str], count: int = 20) -> Figure:
    """Draw which classes are taken for which: the commonest pairs, a bar each.

    Args:
        queries: columns label and fine.recall_at_1; queries whose class the gallery lacks (NaN) are left out.
        predicted: (len(queries),) class of each one's first neighbor.
        count: pairs drawn.

    """
    table = queries[["label"]].assign(taken=list(predicted))[queries["fine.recall_at_1"].notna()]
    wrong = table[table["label"] != table["taken"]]
    asked = table["label"].value_counts()
    pairs = wrong.value_counts(["label", "taken"]).rename("times").reset_index()
    pairs["share"] = pairs["times"] / asked[pairs["label"]].to_numpy()
    shown = pairs.sort_values(["times", "share"], ascending=False, kind="stable").head(count).iloc[::-1]
    figure = Figure(figsize=(7.5, max(1.6, 0.27 * len(shown) + 1.1)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{len(wrong):,} of {len(table):,} queries are taken for another class", fontsize=11, color=INK)
    if not len(shown):
        axes.set_axis_off()
        return figure
    near = np.array([p.label.rpartition("/")[0] == p.taken.rpartition("/")[0] for p in shown.itertuples()])
    for of, color, name in ((near, BAR, "of the same folder"), (~near, WRONG, "of another folder")):
        if of.any():
            axes.barh(np.flatnonzero(of), shown["times"][of], color=color, label=name)
    for place, pair in enumerate(shown.itertuples()):
        axes.text(pair.times, place, f" {pair.times} of {asked[pair.label]}", va="center", fontsize=7.5, color=INK)
    axes.set_yticks(np.arange(len(shown)), [f"{short_label(p.label)}  →  {short_label(p.taken)}" for p in shown.itertuples()], fontsize=8)
    axes.set_xlim(0, float(shown["times"].max()) * 1.15)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("queries", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="taken for a class", fontsize=8, title_fontsize=8, loc="lower right", frameon=False)
    return figure


def recall_curve(ranks: Mapping[str, npt.NDArray[np.float64]], depth: int = DEPTH) -> Figure:
    """Draw recall@k for k = 1 … depth, a line a net.

    Args:
        ranks: of the first hit of each query, as of `first_hit_ranks`, by name of the net.
        depth: up to which k.

    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    k = np.arange(1, depth + 1)
    for name, found in ranks.items():
        known = np.sort(found[~np.isnan(found)])
        axes.plot(k, np.searchsorted(known, k, side="right") / max(1, len(known)), marker="o", markersize=2.5, label=name)
    axes.set_xscale("log")
    axes.set_xticks(
        [tick for tick in (1, 2, 5, 10, 20, 50) if tick <= depth], labels=[str(tick) for tick in (1, 2, 5, 10, 20, 50) if tick <= depth]
    )
    axes.minorticks_off()
    axes.set_ylim(top=1.005)
    axes.set_xlabel("k")
    axes.set_ylabel("recall@k")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure


def per_class_bars(per_class: pd.DataFrame) -> Figure:
    """Draw recall@1 of each class, worst on top, with the number of queries; of many classes the worst 100.

    Args:
        per_class: columns label, queries, fine.recall_at_1, and where there are intervals fine.recall_at_1.low and .high.

    """
    table = per_class.head(CLASSES_SHOWN).iloc[::-1]
    figure = Figure(figsize=(7, max(2.5, 0.17 * len(table) + 0.8)), layout="constrained")
    axes = figure.subplots()
    axes.barh(np.arange(len(table)), table["fine.recall_at_1"], color=BAR)
    if "fine.recall_at_1.low" in table:
        ends = table["fine.recall_at_1.low"], table["fine.recall_at_1.high"]
        axes.hlines(np.arange(len(table)), *ends, color=INK, linewidth=0.8, alpha=0.6)
    for place in np.flatnonzero(table["fine.recall_at_1"].isna()):
        axes.text(0.005, float(place), "no image of it in the gallery", va="center", fontsize=6, color=NEUTRAL)
    axes.set_yticks(np.arange(len(table)), [f"{short_label(r.label)} ({r.queries})" for r in table.itertuples()], fontsize=6.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel("recall@1, 95 % interval (queries)" if "fine.recall_at_1.low" in table else "recall@1 (queries)")
    axes.spines[["top", "right"]].set_visible(False)
    if len(per_class) > len(table):
        axes.set_title(f"The {len(table)} worst of {len(per_class):,} classes", fontsize=11, color=INK)
    return figure


def embedding_map(embeddings: npt.NDArray[np.float32], labels: Sequence[str], seed: int = 0) -> Figure:
    """Draw embeddings (n, d) in the plane by t-SNE, colored by their top folder, at most 1,000 of them; named classes at
    their middles.
    """  # noqa: D205
    from sklearn.manifold import TSNE

    if len(embeddings) < 3:
        return Figure()
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(embeddings))[:MAP_POINTS])
    names = np.array(labels)[chosen]
    perplexity = min(30.0, max(2.0, (len(chosen) - 1) / 4))
    plane = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed).fit_transform(embeddings[chosen])
    tops = np.array([name.split("/")[0] for name in names])
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    color = {top: f"C{i % 10}" for i, top in enumerate(np.unique(tops))}
    for top in np.unique(tops):
        axes.scatter(plane[tops == top, 0], plane[tops == top, 1], s=9, color=color[top], alpha=0.65, label=top, linewidths=0)
    common = [str(name) for name in pd.Series(names).value_counts().index[:50]]
    for name in common:
        x, y = np.median(plane[names == name], axis=0)
        axes.annotate(
            short_label(name),
            (x, y),
            fontsize=6.5,
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.7},
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{len(chosen)} images, t-SNE of their embeddings", fontsize=11)
    if len(color) <= 10:
        axes.legend(markerscale=2, fontsize=8, loc="lower left")
    return figure


def curves(points: pd.DataFrame) -> Figure:
    """Draw a panel a metric over the epochs; columns of `points`: name, value, step."""
    shown = list(dict.fromkeys(points["name"]))
    figure = Figure(figsize=(3.4 * len(shown), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        curve = points[points["name"] == name]
        axes.plot(curve["step"], curve["value"], marker="o", markersize=3)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure

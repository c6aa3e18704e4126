"""Pictures of triplets, neighbours, clusters, classes and the embedding space."""

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
INK = "#222222"
TILE = 128
MAP_POINTS = 1000


def _tile(axes: Axes, jpeg: bytes, title: str, colour: str) -> None:
    image = Image.open(io.BytesIO(jpeg))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    axes.imshow(image.crop((left, top, left + side, top + side)).resize((TILE, TILE)))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(3)
    axes.set_title(title, fontsize=7, color=INK, pad=3)


def _short(label: str) -> str:
    name = label.rsplit("/", 1)[-1]
    name = name if len(name) <= 22 else name[:21] + "…"
    # Between dollars Matplotlib would set a formula.
    return name.replace("$", r"\$")


def _grid(rows: int, columns: int, title: str) -> tuple[Figure, npt.NDArray[Any]]:
    figure = Figure(figsize=(columns * 1.45, rows * 1.65 + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    axes: npt.NDArray[Any] = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _draw_rows(catalogue: Catalogue, rows: Sequence[Sequence[tuple[int, str, str]]], title: str) -> Figure:
    """Draw a grid; each cell is (row of the catalogue, caption, colour of the frame)."""
    figure, axes = _grid(len(rows), max(len(row) for row in rows), title)
    jpegs = iter(catalogue.photographs([cell[0] for row in rows for cell in row]))
    for line, row in zip(axes, rows, strict=True):
        for axis, (_, caption, colour) in zip(line, row, strict=False):
            axis.set_axis_on()
            _tile(axis, next(jpegs), caption, colour)
    return figure


def triplet_grid(catalogue: Catalogue, triplets: pd.DataFrame, count: int = 8, seed: int = 0) -> Figure:
    """Draw random triplets, one a line: query, positive, negative."""
    chosen = triplets.sample(min(count, len(triplets)), random_state=seed)
    labels = catalogue.frame["label"]
    rows = [
        [
            (int(t.query), f"query\n{_short(labels[t.query])}", NEUTRAL),
            (int(t.positive), f"positive ({t.relevance_positive:.2g})\n{_short(labels[t.positive])}", RIGHT),
            (int(t.negative), f"negative ({t.relevance_negative:.2g})\n{_short(labels[t.negative])}", WRONG),
        ]
        for t in chosen[["query", "positive", "negative", "relevance_positive", "relevance_negative"]].itertuples(index=False)
    ]
    half = -(-len(rows) // 2)
    pairs = [rows[i] + (rows[i + half] if i + half < len(rows) else []) for i in range(half)]
    return _draw_rows(catalogue, pairs, "Triplets: query, positive, negative (relevance)")


def photograph_sheet(catalogue: Catalogue, count: int = 32, seed: int = 0) -> Figure:
    """Draw random photographs with their classes."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(catalogue.frame))[:count])
    cells = [(int(row), _short(catalogue.frame["label"][row]), NEUTRAL) for row in rows]
    return _draw_rows(catalogue, [cells[i : i + 8] for i in range(0, len(cells), 8)], f"{len(catalogue.frame):,} photographs, some of them")


def neighbour_gallery(
    catalogue: Catalogue,
    embeddings: npt.NDArray[np.float32],
    queries: pd.DataFrame,
    gallery: npt.NDArray[np.int64],
    count: int = 6,
    seed: int = 0,
) -> Figure:
    """Draw the neighbours of some queries that found their class first, and of the worst that did not.

    Args:
        catalogue: where the photographs are.
        embeddings: (len(frame), d) of unit length.
        queries: columns row, fine.recall_at_1, fine.map_at_r.
        gallery: rows searched.
        count: of queries of each kind.
        seed: which right ones.

    """
    wrong = queries[queries["fine.recall_at_1"] == 0].sort_values("fine.map_at_r", kind="stable").head(count)
    right = queries[queries["fine.recall_at_1"] == 1]
    right = right.sample(min(count, len(right)), random_state=seed)
    labels = catalogue.frame["label"]
    lines = []
    for row in [*right["row"], *wrong["row"]]:
        similarity = embeddings[gallery] @ embeddings[row]
        nearest = gallery[np.argsort(-similarity, kind="stable")[:6]]
        line = [(int(row), f"query\n{_short(labels[row])}", NEUTRAL)]
        for other in nearest:
            distance = float(np.linalg.norm(embeddings[other] - embeddings[row]))
            line.append((int(other), f"{distance:.2f}\n{_short(labels[other])}", RIGHT if labels[other] == labels[row] else WRONG))
        lines.append(line)
    if not lines:
        return Figure()
    return _draw_rows(
        catalogue, lines, f"{len(right)} queries that find their class first, and the {len(wrong)} worst that do not (distance)"
    )


def per_class_bars(per_class: pd.DataFrame) -> Figure:
    """Draw recall@1 of each class, worst on top, with the number of queries."""
    table = per_class.iloc[::-1]
    figure = Figure(figsize=(7, max(2.5, 0.17 * len(table) + 0.8)), layout="constrained")
    axes = figure.subplots()
    axes.barh(np.arange(len(table)), table["fine.recall_at_1"], color="#4c78a8")
    axes.set_yticks(np.arange(len(table)), [f"{_short(r.label)} ({r.queries})" for r in table.itertuples()], fontsize=6.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel("recall@1 (queries)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def embedding_map(embeddings: npt.NDArray[np.float32], labels: Sequence[str], seed: int = 0) -> Figure:
    """Draw embeddings (n, d) in the plane by t-SNE, coloured by their top folder, at most 1,000 of them; named classes at
    their middles.
    """  # noqa: D205
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(embeddings))[:MAP_POINTS])
    names = np.array(labels)[chosen]
    perplexity = min(30.0, max(2.0, (len(chosen) - 1) / 4))
    plane = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed).fit_transform(embeddings[chosen])
    tops = np.array([name.split("/")[0] for name in names])
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    colour = {top: f"C{i % 10}" for i, top in enumerate(np.unique(tops))}
    for top in np.unique(tops):
        axes.scatter(plane[tops == top, 0], plane[tops == top, 1], s=9, color=colour[top], alpha=0.65, label=top, linewidths=0)
    common = [str(name) for name in pd.Series(names).value_counts().index[:50]]
    for name in common:
        x, y = np.median(plane[names == name], axis=0)
        axes.annotate(
            _short(name),
            (x, y),
            fontsize=6.5,
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.7},
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{len(chosen)} photographs, t-SNE of their embeddings", fontsize=11)
    if len(colour) <= 10:
        axes.legend(markerscale=2, fontsize=8, loc="lower left")
    return figure


def cluster_montage(catalogue: Catalogue, clusters: Sequence[npt.NDArray[np.int64]], captions: Sequence[str]) -> Figure:
    """Draw a line a cluster: its photographs nearest to the centre first.

    Args:
        catalogue: where the photographs are.
        clusters: rows of each, nearest to the centre first.
        captions: of each cluster.

    """
    labels = catalogue.frame["label"]
    lines = [
        [
            (int(row), f"{caption}\n{_short(labels[row])}" if i == 0 else f"\n{_short(labels[row])}", NEUTRAL)
            for i, row in enumerate(members[:8])
        ]
        for members, caption in zip(clusters, captions, strict=True)
    ]
    return _draw_rows(catalogue, lines, "Clusters: photographs nearest to each centre")


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

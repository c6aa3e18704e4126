"""Figures of clusters: their number, the tree over them, a map, and their images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.projection import project_to_plane
from deeprank.plotting.style import (
    BAR_COLOR,
    CORRECT_COLOR,
    MAX_MAP_POINTS,
    NEUTRAL_COLOR,
    TEXT_COLOR,
    draw_image_rows,
    register_figure,
    short_label,
)
from deeprank.plotting.thumbnails import center_square
from deeprank.row_numbers import CatalogueRows

if TYPE_CHECKING:
    from deeprank.search.clusters import Clusters

MAX_TREE_LEAVES = 100
MAX_MAP_THUMBNAILS = 120
MAX_MONTAGE_COLUMNS = 8
# Without gray, the color of the tree above the sections.
SECTION_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf")
# Pixels per point of a thumbnail, so that it is sharp on paper.
PIXELS_PER_POINT = 4


@register_figure("cluster_silhouettes", "The mean silhouette of each number of clusters tried. The greatest, with a ring, was chosen.")
def silhouette_curve(silhouettes: pd.DataFrame) -> Figure:
    """Draw the silhouette of each number of clusters tried, the chosen one with a ring.

    Args:
        silhouettes: columns n_clusters and silhouette, at least one row.

    """
    best = silhouettes.loc[silhouettes["silhouette"].idxmax()]
    k, value = best["n_clusters"], best["silhouette"]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(silhouettes["n_clusters"], silhouettes["silhouette"], color=BAR_COLOR, marker="o", markersize=4)
    axes.scatter([k], [value], s=150, facecolors="none", edgecolors=CORRECT_COLOR, linewidths=2, zorder=3)
    axes.annotate(f"{k:.0f}", (k, value), xytext=(0, -20), textcoords="offset points", ha="center", color=CORRECT_COLOR)
    axes.set_xscale("log", base=2)
    ticks = [float(silhouettes["n_clusters"].min()), float(silhouettes["n_clusters"].max()), float(k)]
    # Powers of two between the ends, where they do not overlap the other ticks.
    ticks += [float(2**i) for i in range(1, 24) if ticks[0] < 2**i < ticks[1] and min(abs(np.log2(2**i / np.array(ticks[:3])))) > 0.25]
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel("clusters")
    axes.set_ylabel("mean silhouette")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@register_figure(
    "cluster_tree",
    "The tree over the clusters. Each leaf shows its most typical image, its most frequent class and its number of images; each color is a "
    "section.",
)
def cluster_tree(catalogue: Catalogue, clusters: "Clusters", leaves: npt.NDArray[np.int64], leaf_names: pd.DataFrame) -> Figure:
    """Draw the upper part of the tree, with an image, a name and the number of images at each leaf.

    The branches within a section have its color.

    Args:
        catalogue: of the images.
        clusters: of the catalogue.
        leaves: the nodes drawn as leaves, from left to right, as of `Clusters.cut`; no section lies below one of them.
        leaf_names: columns label and share, a row for each of them.

    """
    figure = Figure(figsize=(10, 0.31 * len(leaves) + 1), layout="constrained")
    axes = figure.subplots()
    colors = _node_colors(clusters)
    max_height = max(clusters.linkage_matrix[:, 2], default=1.0)
    _draw_branches(axes, clusters, leaves, colors)
    jpegs = catalogue.read_jpegs(clusters.representatives[leaves])
    for y, (node, jpeg, label, share) in enumerate(zip(leaves, jpegs, leaf_names["label"], leaf_names["share"], strict=True)):
        _draw_thumbnail(axes, jpeg, (-0.025 * max_height, y), 19, colors.get(int(node), NEUTRAL_COLOR))
        k = len(clusters.centroids)
        number = f"{node}" if node < k else f"{clusters.linkage_matrix[node - k, 3]:.0f} clusters"
        axes.text(-0.115 * max_height, y, number, fontsize=8, va="center", ha="right", color=NEUTRAL_COLOR)
        name = f"{short_label(label)}{'' if share == 1 else f' {share:.0%}'}  ({clusters.sizes[node]:,})"
        axes.text(-0.13 * max_height, y, name, fontsize=8, va="center", color=TEXT_COLOR)
    axes.set_xlim(1.02 * max_height, -0.62 * max_height)
    axes.set_ylim(len(leaves) - 0.3, -0.7)
    axes.set_axis_off()
    title = f"{len(clusters.centroids):,} clusters in {len(clusters.section_nodes)} sections: most frequent class (number of images)"
    axes.set_title(title, fontsize=11, color=TEXT_COLOR)
    return figure


def _draw_branches(axes: Axes, clusters: "Clusters", leaves: npt.NDArray[np.int64], colors: dict[int, str]) -> None:
    heights = dict(enumerate(clusters.linkage_matrix[:, 2], start=len(clusters.centroids))) | {int(node): 0.0 for node in leaves}
    for join in clusters.joins_above(leaves):
        for y, child in zip(join.positions, join.children, strict=True):
            color = colors.get(child, NEUTRAL_COLOR)
            axes.plot([join.height, heights[child]], [y, y], color=color, linewidth=1.6, solid_capstyle="round")
        color = colors.get(join.node, NEUTRAL_COLOR)
        axes.plot([join.height, join.height], join.positions, color=color, linewidth=1.6, solid_capstyle="round")


def _node_colors(clusters: "Clusters") -> dict[int, str]:
    """Return the color of each node that is a section or lies below one."""
    colors = {int(node): section_color(section) for section, node in enumerate(clusters.section_nodes)}
    k = len(clusters.centroids)
    for node in range(2 * k - 2, k - 1, -1):
        if node in colors:
            colors |= dict.fromkeys(clusters.children[node - k].tolist(), colors[node])
    return colors


def section_color(section: int) -> str:
    """Return the color of a section, by its number."""
    return SECTION_COLORS[section % len(SECTION_COLORS)]


def _draw_thumbnail(axes: Axes, jpeg: bytes, position: tuple[float, float], side: int, color: str) -> None:
    """Draw an image of `side` points with a colored frame."""
    thumbnail = OffsetImage(np.asarray(center_square(jpeg, PIXELS_PER_POINT * side)), zoom=1 / PIXELS_PER_POINT)
    axes.add_artist(AnnotationBbox(thumbnail, position, pad=0.08, bboxprops={"edgecolor": color, "linewidth": 1.5}))


@register_figure(
    "cluster_map",
    "Embeddings projected to the plane by t-SNE; the color is the section. Each large cluster has its number and its most typical image.",
)
def cluster_map(catalogue: Catalogue, embeddings: npt.NDArray[np.float32], clusters: "Clusters", seed: int = 0) -> Figure:
    """Draw images in the plane by t-SNE, colored by section, with an image of each of the 120 largest clusters.

    Args:
        catalogue: of the images.
        embeddings: (n, d) of every row of the catalogue's frame; 1,000 of them are drawn, and the representatives of the clusters.
        clusters: of the embeddings.
        seed: of the sample and of t-SNE.

    """
    largest = np.argsort(-clusters.sizes[: len(clusters.centroids)], kind="stable")[:MAX_MAP_THUMBNAILS]
    representatives = clusters.representatives[largest]
    rows = np.union1d(np.random.default_rng(seed).permutation(len(embeddings))[:MAX_MAP_POINTS], representatives)
    positions = project_to_plane(embeddings[rows], seed)
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    colors = [section_color(section) for section in clusters.sections[clusters.assignments[rows]]]
    axes.scatter(positions[:, 0], positions[:, 1], s=12, c=colors, alpha=0.7, linewidths=0)
    for cluster, row, jpeg in zip(largest, representatives, catalogue.read_jpegs(representatives), strict=True):
        x, y = (float(value) for value in positions[np.searchsorted(rows, row)])
        _draw_thumbnail(axes, jpeg, (x, y), 17, section_color(clusters.sections[cluster]))
        label = axes.annotate(f"{cluster}", (x, y), xytext=(0, -16), textcoords="offset points", ha="center", color=TEXT_COLOR)
        label.set(fontsize=6.5, zorder=5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.04)
    axes.set_title(f"{len(rows):,} images, t-SNE of their embeddings; color: section, number: cluster", fontsize=11, color=TEXT_COLOR)
    return figure


@register_figure("cluster_montage", "The largest clusters, one in each row: the images nearest to its centroid, nearest first.")
def cluster_montage(catalogue: Catalogue, members: Sequence[CatalogueRows], captions: Sequence[str]) -> Figure:
    """Draw a row of images for each cluster, nearest to its centroid first.

    Args:
        catalogue: of the images.
        members: the images of each cluster, nearest to its centroid first; at most eight are drawn.
        captions: of each cluster.

    """
    labels = catalogue.frame["label"]
    grid = [
        [
            (int(row), f"{caption if i == 0 else ''}\n{short_label(labels[row])}", NEUTRAL_COLOR)
            for i, row in enumerate(rows[:MAX_MONTAGE_COLUMNS])
        ]
        for rows, caption in zip(members, captions, strict=True)
    ]
    return draw_image_rows(catalogue, grid, "Clusters: images nearest to each centroid")

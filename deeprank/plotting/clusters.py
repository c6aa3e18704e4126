"""Pictures of clusters: how many and why, the tree over them, a map, and the images in them."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.style import BAR, INK, MAP_POINTS, NEUTRAL, RIGHT, draw_image_rows, short_label
from deeprank.reporting import Reporter
from deeprank.search.clusters import Clusters, Floats, Integers, kind, silhouette

SHOWN, ENDS, PICTURED = 10, 100, 120
# None of them grey, which is what lies above the sections.
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf")


def report_clusters(catalogue: Catalogue, embeddings: Floats, clusters: Clusters, reporter: Reporter) -> None:
    """Report clusters.count, .sections, .purity, .ami, .silhouette, the note clusters.choice, and the pictures.

    Args:
        catalogue: what was clustered.
        embeddings: of every row of its frame.
        clusters: of them.
        reporter: hears all of it.

    """
    labels = np.unique(catalogue.frame["label"], return_inverse=True)[1]
    reporter.metric("clusters.count", len(clusters.centroids))
    reporter.metric("clusters.sections", len(clusters.section_nodes))
    reporter.metric("clusters.purity", clusters.purity(labels))
    reporter.metric("clusters.ami", clusters.ami(labels))
    reporter.metric("clusters.silhouette", silhouette(embeddings, clusters.assigned))
    reporter.note("clusters.choice", choice_in_words(clusters))
    if len(clusters.choice):
        reporter.figure("cluster_choice", autotune_curve(clusters))
    reporter.figure("cluster_tree", cluster_tree(catalogue, clusters))
    reporter.figure("cluster_map", cluster_map(catalogue, embeddings, clusters))
    largest = np.argsort(-clusters.sizes[: len(clusters.centroids)], kind="stable")[:SHOWN]
    captions = [f"cluster {number}, {clusters.sizes[number]:,}" for number in largest]
    reporter.figure("cluster_montage", cluster_montage(catalogue, [clusters.members(embeddings, number) for number in largest], captions))


def choice_in_words(clusters: Clusters) -> str:
    """Return why there are so many clusters."""
    tried = clusters.choice
    if not len(tried):
        return "set by hand, or the root of the number of images where none can be tried"
    k, value = tried.loc[tried["silhouette"].idxmax()]
    return (
        f"{k:.0f}, of {len(tried)} numbers from {tried['k'].min()} to {tried['k'].max()} the one with the greatest silhouette, {value:.4f}"
    )


def autotune_curve(clusters: Clusters) -> Figure:
    """Draw the silhouette of every number of clusters tried, at least one, the chosen one ringed."""
    tried = clusters.choice
    best = tried.loc[tried["silhouette"].idxmax()]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(tried["k"], tried["silhouette"], color=BAR, marker="o", markersize=4)
    axes.scatter([best["k"]], [best["silhouette"]], s=150, facecolors="none", edgecolors=RIGHT, linewidths=2, zorder=3)
    axes.annotate(
        f"{best['k']:.0f}", (best["k"], best["silhouette"]), xytext=(0, -20), textcoords="offset points", ha="center", color=RIGHT
    )
    axes.set_xscale("log", base=2)
    named = [float(tried["k"].min()), float(tried["k"].max()), float(best["k"])]
    # Powers of two between them, as far as they leave each other room.
    named += [float(2**i) for i in range(1, 24) if named[0] < 2**i < named[1] and min(abs(np.log2(2**i / np.array(named[:3])))) > 0.25]
    axes.set_xticks(named, [f"{tick:,.0f}" for tick in named], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel("clusters")
    axes.set_ylabel("mean silhouette")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def branches(clusters: Clusters, nodes: Integers) -> Iterator[tuple[int, tuple[float, float], tuple[int, int], float]]:
    """Yield what is above some nodes of the tree, from the lowest joint to the root.

    Args:
        clusters: with the tree.
        nodes: from left to right, as `Clusters.cut` returns them: the places 0, 1, ….

    Yields:
        Node, places of its children, its children, and its height; its own place is the mean of theirs.

    """
    place = {int(node): float(i) for i, node in enumerate(nodes)}
    k = len(clusters.centroids)
    for node, ((left, right), height) in enumerate(zip(clusters.children.tolist(), clusters.joined[:, 2], strict=True), start=k):
        if left in place and right in place:
            place[node] = (place[left] + place[right]) / 2
            yield node, (place[left], place[right]), (left, right), float(height)


def cluster_tree(catalogue: Catalogue, clusters: Clusters) -> Figure:
    """Draw the tree of clusters, of many the upper part of it with 100 ends, at each end an image, what it is and how many.

    Branches within a section have its color.
    """
    nodes, group = clusters.cut(max(ENDS, len(clusters.section_nodes)))
    what = kind(catalogue.frame["label"], group[clusters.assigned])
    figure = Figure(figsize=(10, 0.31 * len(nodes) + 1), layout="constrained")
    axes = figure.subplots()
    colors = _node_colors(clusters)
    heights = dict(enumerate(clusters.joined[:, 2], start=len(clusters.centroids)))
    ends = {int(node) for node in nodes}
    top = max(heights.values(), default=1.0)
    for node, places, children, height in branches(clusters, nodes):
        for place, child in zip(places, children, strict=True):
            start = 0.0 if child in ends else heights[child]
            axes.plot([height, start], [place, place], color=colors.get(child, NEUTRAL), linewidth=1.6, solid_capstyle="round")
        axes.plot([height, height], places, color=colors.get(node, NEUTRAL), linewidth=1.6, solid_capstyle="round")
    jpegs = catalogue.images(clusters.representatives[nodes])
    for place, (node, jpeg, label, share) in enumerate(zip(nodes, jpegs, what["label"], what["share"], strict=True)):
        _image(axes, jpeg, (-0.025 * top, place), 19, colors.get(int(node), NEUTRAL))
        number = f"{node}" if node < len(clusters.centroids) else f"{np.count_nonzero(group == place)} clusters"
        axes.text(-0.115 * top, place, number, fontsize=8, va="center", ha="right", color=NEUTRAL)
        words = f"{short_label(label)}{'' if share == 1 else f' {share:.0%}'}  ({clusters.sizes[node]:,})"
        axes.text(-0.13 * top, place, words, fontsize=8, va="center", color=INK)
    axes.set_xlim(1.02 * top, -0.62 * top)
    axes.set_ylim(len(nodes) - 0.3, -0.7)
    axes.set_axis_off()
    axes.set_title(
        f"{len(clusters.centroids):,} clusters in {len(clusters.section_nodes)} sections: what most of each is (images)",
        fontsize=11,
        color=INK,
    )
    return figure


def _node_colors(clusters: Clusters) -> dict[int, str]:
    """Return the color of its section for each node within one."""
    colors = {int(node): section_color(section) for section, node in enumerate(clusters.section_nodes)}
    k = len(clusters.centroids)
    for node in range(2 * k - 2, k - 1, -1):
        if node in colors:
            colors |= dict.fromkeys(clusters.children[node - k].tolist(), colors[node])
    return colors


def section_color(section: int) -> str:
    """Return the color of a section."""
    return COLORS[section % len(COLORS)]


def _image(axes: Axes, jpeg: bytes, place: tuple[float, float], side: int, color: str) -> None:
    # Four pixels a point: sharp on paper too.
    image = OffsetImage(np.asarray(square(jpeg, 4 * side)), zoom=0.25)
    axes.add_artist(AnnotationBbox(image, place, pad=0.08, bboxprops={"edgecolor": color, "linewidth": 1.5}))


def square(jpeg: bytes, side: int) -> Image.Image:
    """Return the middle square of a stored image, side x side."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((side, side), Image.Resampling.LANCZOS, box=(left, top, left + edge, top + edge))


def in_the_plane(points: Floats, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return places (n, 2) of points (n, d) by t-SNE; fewer than four lie on a line.

    Source: van der Maaten & Hinton 2008.
    """
    from sklearn.manifold import TSNE

    if len(points) < 4:
        return np.stack([np.arange(len(points)), np.zeros(len(points))], axis=1).astype(np.float32)
    perplexity = min(30.0, max(2.0, (len(points) - 1) / 4))
    places: npt.NDArray[np.float32] = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed).fit_transform(points)
    return places


def cluster_map(catalogue: Catalogue, embeddings: Floats, clusters: Clusters, seed: int = 0) -> Figure:
    """Draw images in the plane by t-SNE, colored by section, and an image of each of the 120 largest clusters.

    Args:
        catalogue: what was clustered.
        embeddings: of every row of its frame; 1,000 of them are drawn, and those pictured.
        clusters: of them.
        seed: which images, and of t-SNE.

    """
    largest = np.argsort(-clusters.sizes[: len(clusters.centroids)], kind="stable")[:PICTURED]
    pictured = clusters.representatives[largest]
    chosen = np.union1d(np.random.default_rng(seed).permutation(len(embeddings))[:MAP_POINTS], pictured)
    places = in_the_plane(embeddings[chosen], seed)
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    colors = [section_color(section) for section in clusters.sections[clusters.assigned[chosen]]]
    axes.scatter(places[:, 0], places[:, 1], s=12, c=colors, alpha=0.7, linewidths=0)
    for number, row, jpeg in zip(largest, pictured, catalogue.images(pictured), strict=True):
        x, y = (float(value) for value in places[np.searchsorted(chosen, row)])
        _image(axes, jpeg, (x, y), 17, section_color(clusters.sections[number]))
        axes.annotate(f"{number}", (x, y), xytext=(0, -16), textcoords="offset points", ha="center", fontsize=6.5, color=INK, zorder=5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.04)
    axes.set_title(f"{len(chosen):,} images, t-SNE of their embeddings; color: section, number: cluster", fontsize=11, color=INK)
    return figure


def cluster_montage(catalogue: Catalogue, clusters: Sequence[npt.NDArray[np.int64]], captions: Sequence[str]) -> Figure:
    """Draw a line a cluster: its images nearest to the center first.

    Args:
        catalogue: where the images are.
        clusters: rows of each, nearest to the center first.
        captions: of each cluster.

    """
    labels = catalogue.frame["label"]
    lines = [
        [
            (int(row), f"{caption}\n{short_label(labels[row])}" if i == 0 else f"\n{short_label(labels[row])}", NEUTRAL)
            for i, row in enumerate(members[:8])
        ]
        for members, caption in zip(clusters, captions, strict=True)
    ]
    return draw_image_rows(catalogue, lines, "Clusters: images nearest to each center")

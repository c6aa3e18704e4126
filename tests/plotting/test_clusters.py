"""Figures of clusters draw every cluster, with its size and the color of its section."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.clusters import (
    SECTION_COLORS,
    cluster_map,
    cluster_montage,
    cluster_tree,
    section_color,
    silhouette_curve,
)
from deeprank.plotting.style import NEUTRAL_COLOR
from deeprank.row_numbers import CatalogueRows
from deeprank.search.cluster_labels import majority_folder
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.clusters import Clusters
from tests.plotting.reading import last_folder, tile_rows


@pytest.fixture(scope="module")
def clusters(embeddings: np.ndarray) -> Clusters:
    return cluster_embeddings(embeddings, ClusterSettings(n_clusters=7))


def _draw_tree(catalogue: Catalogue, clusters: Clusters, max_leaves: int) -> Figure:
    leaves, leaf_of_cluster = clusters.cut(max_leaves)
    names = majority_folder(catalogue.frame["label"], leaf_of_cluster[clusters.assignments])
    return cluster_tree(catalogue, clusters, leaves, names)


def test_greatest_silhouette_has_a_ring() -> None:
    silhouettes = pd.DataFrame({"n_clusters": [2, 3, 5, 8], "silhouette": [0.1, 0.4, 0.3, 0.2]})
    (axes,) = silhouette_curve(silhouettes).axes
    assert axes.collections[0].get_offsets().tolist() == [[3, 0.4]]


def test_tree_has_a_branch_and_an_image_for_every_cluster(catalogue: Catalogue, clusters: Clusters) -> None:
    (axes,) = _draw_tree(catalogue, clusters, 100).axes
    assert len([artist for artist in axes.artists if isinstance(artist, AnnotationBbox)]) == 7
    texts = [text.get_text() for text in axes.texts]
    assert texts[::2] == [str(number) for number in range(7)]
    for number, name in enumerate(texts[1::2]):
        assert name.endswith(f"({np.count_nonzero(clusters.assignments == number)})")
    # Three lines for each join.
    assert len(axes.lines) == 3 * 6
    assert {to_hex(line.get_color()) for line in axes.lines} <= {*SECTION_COLORS, NEUTRAL_COLOR}


def test_large_tree_is_drawn_down_to_the_given_leaves(catalogue: Catalogue, clusters: Clusters) -> None:
    (axes,) = _draw_tree(catalogue, clusters, 4).axes
    nodes, leaf_of_cluster = clusters.cut(4)
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == 8
    for position, (number, name) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        inside = np.flatnonzero(leaf_of_cluster == position)
        assert number == (str(inside[0]) if len(inside) == 1 else f"{len(inside)} clusters")
        assert name.endswith(f"({clusters.sizes[nodes[position]]})")


def test_map_has_section_colors_and_cluster_numbers(catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters) -> None:
    (axes,) = cluster_map(catalogue, embeddings, clusters).axes
    (points,) = axes.collections
    assert len(points.get_offsets()) == len(embeddings)
    expected = [section_color(section) for section in clusters.sections[clusters.assignments]]
    assert [to_hex(color) for color in points.get_facecolors()] == expected
    assert sorted(int(text.get_text()) for text in axes.texts) == list(range(7))
    for text in axes.texts:
        row = clusters.representatives[int(text.get_text())]
        assert list(text.xy) == pytest.approx(points.get_offsets()[row].tolist())


def test_montage_has_a_row_per_cluster_of_at_most_eight_images(catalogue: Catalogue) -> None:
    members = [CatalogueRows(np.array(rows)) for rows in ([3, 1, 2], range(20), [5])]
    rows = tile_rows(cluster_montage(catalogue, members, ["one", "two", "three"]))
    assert [len(row) for row in rows] == [3, 8, 1]
    labels = [last_folder(label) for label in catalogue.frame["label"]]
    assert [caption.split("\n") for caption, _ in rows[0]] == [["one", labels[3]], ["", labels[1]], ["", labels[2]]]

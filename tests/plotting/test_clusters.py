"""Pictures of clusters show what they say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.offsetbox import AnnotationBbox

from deeprank.data.catalogue import Catalogue
from deeprank.plotting import clusters as figures
from deeprank.reporting import Record
from deeprank.search.clusters import Clusters, ClusterSettings, cluster, silhouette


@pytest.fixture(scope="module")
def clusters(embeddings: np.ndarray) -> Clusters:
    return cluster(embeddings, ClusterSettings(clusters=7))


def test_everything_is_reported(catalogue: Catalogue, embeddings: np.ndarray, tmp_path: Path) -> None:
    record = Record(tmp_path)
    clusters = cluster(embeddings, ClusterSettings())
    figures.report_clusters(catalogue, embeddings, clusters, record)
    found = {point.name: point.value for point in record.points}
    labels = np.unique(catalogue.frame["label"], return_inverse=True)[1]
    assert found == {
        "clusters.count": len(clusters.centroids),
        "clusters.sections": len(clusters.section_nodes),
        "clusters.purity": clusters.purity(labels),
        "clusters.ami": clusters.ami(labels),
        "clusters.silhouette": silhouette(embeddings, clusters.assigned),
    }
    assert set(record.figures) == {"cluster_choice", "cluster_tree", "cluster_map", "cluster_montage"}
    assert record.notes["clusters.choice"].startswith(f"{len(clusters.centroids)}, of {len(clusters.choice)} numbers")


@pytest.mark.parametrize("wanted", [1, 2])
def test_few_clusters_set_by_hand_are_reported_without_a_choice(
    catalogue: Catalogue, embeddings: np.ndarray, tmp_path: Path, wanted: int
) -> None:
    record = Record(tmp_path)
    figures.report_clusters(catalogue, embeddings, cluster(embeddings, ClusterSettings(clusters=wanted)), record)
    assert set(record.figures) == {"cluster_tree", "cluster_map", "cluster_montage"}
    assert record.notes["clusters.choice"].startswith("set by hand")


def test_the_curve_rings_the_greatest_silhouette(clusters: Clusters) -> None:
    choice = pd.DataFrame({"k": [2, 3, 5, 8], "silhouette": [0.1, 0.4, 0.3, 0.2]})
    chosen = Clusters(clusters.centroids, clusters.assigned, clusters.joined, clusters.representatives, choice)
    (axes,) = figures.autotune_curve(chosen).axes
    assert axes.collections[0].get_offsets().tolist() == [[3, 0.4]]
    assert figures.choice_in_words(chosen) == "3, of 4 numbers from 2 to 8 the one with the greatest silhouette, 0.4000"


def test_the_tree_has_a_line_and_a_image_for_every_cluster(catalogue: Catalogue, clusters: Clusters) -> None:
    (axes,) = figures.cluster_tree(catalogue, clusters).axes
    assert len([artist for artist in axes.artists if isinstance(artist, AnnotationBbox)]) == 7
    words = [text.get_text() for text in axes.texts]
    assert words[::2] == [str(number) for number in range(7)]
    for number, word in enumerate(words[1::2]):
        assert word.endswith(f"({np.count_nonzero(clusters.assigned == number)})")
    # Two arms and a back for each joint.
    assert len(axes.lines) == 3 * 6
    assert {to_hex(line.get_color()) for line in axes.lines} <= {*figures.COLORS, figures.NEUTRAL}


def test_of_many_clusters_the_upper_part_of_the_tree_is_drawn(
    catalogue: Catalogue, clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "ENDS", 4)
    (axes,) = figures.cluster_tree(catalogue, clusters).axes
    nodes, group = clusters.cut(4)
    words = [text.get_text() for text in axes.texts]
    assert len(words) == 8
    for place, (number, word) in enumerate(zip(words[::2], words[1::2], strict=True)):
        inside = np.flatnonzero(group == place)
        assert number == (str(inside[0]) if len(inside) == 1 else f"{len(inside)} clusters")
        assert word.endswith(f"({clusters.sizes[nodes[place]]})")


def test_branches_lead_from_the_ends_to_the_root(clusters: Clusters) -> None:
    found = list(figures.branches(clusters, np.arange(7)))
    assert [node for node, *_ in found] == list(range(7, 13))
    for node, places, children, height in found:
        assert places[0] < places[1]
        assert list(children) == clusters.children[node - 7].tolist()
        assert height == clusters.joined[node - 7, 2]


def test_the_map_has_every_image_in_the_color_of_its_section_and_every_cluster_by_number(
    catalogue: Catalogue, embeddings: np.ndarray, clusters: Clusters
) -> None:
    (axes,) = figures.cluster_map(catalogue, embeddings, clusters).axes
    (points,) = axes.collections
    assert len(points.get_offsets()) == len(embeddings)
    expected = [figures.section_color(section) for section in clusters.sections[clusters.assigned]]
    assert [to_hex(color) for color in points.get_facecolors()] == expected
    assert sorted(int(text.get_text()) for text in axes.texts) == list(range(7))
    for text in axes.texts:
        row = clusters.representatives[int(text.get_text())]
        assert list(text.xy) == pytest.approx(points.get_offsets()[row].tolist())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_few_points_have_a_place_too(embeddings: np.ndarray, count: int) -> None:
    places = figures.in_the_plane(embeddings[:count])
    assert places.shape == (count, 2)
    assert len(np.unique(places, axis=0)) == count


def test_a_montage_has_a_line_a_cluster_and_at_most_eight_images(catalogue: Catalogue) -> None:
    figure = figures.cluster_montage(catalogue, [np.array([3, 1, 2]), np.arange(20), np.array([5])], ["one", "two", "three"])
    lines: dict[int, list[str]] = {}
    for axes in figure.axes:
        if axes.images:
            lines.setdefault(axes.get_subplotspec().rowspan.start, []).append(axes.get_title())
    assert [len(lines[place]) for place in sorted(lines)] == [3, 8, 1]
    labels = [label.rsplit("/", 1)[-1] for label in catalogue.frame["label"]]
    assert [caption.split("\n") for caption in lines[0]] == [["one", labels[3]], ["", labels[1]], ["", labels[2]]]

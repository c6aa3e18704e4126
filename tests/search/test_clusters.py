"""Clusters: centroids of unit length, everyone with the nearest, as many as there are, and a tree that counts right."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster, is_valid_linkage, leaves_list
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, silhouette_score

from deeprank.search import clusters as module
from deeprank.search.clusters import Clusters, ClusterSettings, Node, cluster, kind, majority, silhouette


def _blobs(blobs: int, each: int, spread: float = 0.05, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centers = np.eye(d)[np.arange(blobs) % d] * np.where(np.arange(blobs) < d, 1, -1)[:, None]
    points = np.repeat(centers, each, axis=0) + rng.normal(scale=spread, size=(blobs * each, d))
    order = rng.permutation(len(points))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit[order].astype(np.float32), np.repeat(np.arange(blobs), each)[order]


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return _blobs(12, 20, spread=0.4)[0]


@pytest.fixture(scope="module")
def clusters(points: np.ndarray) -> Clusters:
    return cluster(points, ClusterSettings(clusters=17))


@pytest.mark.parametrize(("count", "wanted", "found"), [(48, 5, 5), (3, 10, 3), (1, 0, 1), (1, 4, 1)])
def test_there_are_as_many_clusters_as_asked_for_and_images_allow(count: int, wanted: int, found: int) -> None:
    points, _ = _blobs(count, 1, d=64)
    clusters = cluster(points, ClusterSettings(clusters=wanted))
    assert len(clusters.centroids) == found
    assert not len(clusters.choice)


@pytest.mark.parametrize(("blobs", "each"), [(3, 40), (12, 20), (16, 8)])
def test_as_many_clusters_are_chosen_as_there_are_heaps(blobs: int, each: int) -> None:
    points, labels = _blobs(blobs, each, spread=0.08)
    clusters = cluster(points, ClusterSettings())
    assert abs(len(clusters.centroids) - blobs) <= max(1, blobs // 10)
    assert clusters.purity(labels) > 0.95
    assert adjusted_rand_score(labels, clusters.assigned) > 0.9


def test_the_choice_shows_what_was_tried_and_takes_the_greatest() -> None:
    points, _ = _blobs(6, 30, spread=0.3)
    clusters = cluster(points, ClusterSettings())
    tried = clusters.choice
    assert tried["k"].is_monotonic_increasing
    assert len(tried) > 5
    assert tried["k"].min() <= np.sqrt(180) / 3
    assert tried["k"].max() >= 3 * np.sqrt(180)
    best = tried.loc[tried["silhouette"].idxmax()]
    assert best["k"] == len(clusters.centroids)
    assert best["silhouette"] == pytest.approx(silhouette(points, clusters.assigned))


def test_a_large_catalogue_has_no_fewer_clusters_than_the_root_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTS_FROM", 300)
    monkeypatch.setattr(module, "SAMPLE", 200)
    points, _ = _blobs(4, 100)
    clusters = cluster(points, ClusterSettings(iterations=3))
    assert clusters.choice["k"].min() == 20
    # At least five images of the sample a cluster.
    assert clusters.choice["k"].max() <= 40
    assert clusters.assigned.shape == (400,)


def test_the_silhouette_is_the_one_that_comparing_everyone_with_everyone_gives(points: np.ndarray, clusters: Clusters) -> None:
    assert silhouette(points, clusters.assigned) == pytest.approx(silhouette_score(points, clusters.assigned, metric="cosine"), abs=1e-5)
    some = np.concatenate([np.zeros(len(points) - 3, dtype=np.int64), [1, 2, 2]])
    assert silhouette(points, some) == pytest.approx(silhouette_score(points, some, metric="cosine"), abs=1e-5)
    assert silhouette(points, np.zeros(len(points), dtype=np.int64)) == 0


def test_the_silhouette_of_many_is_close_to_that_of_all(points: np.ndarray, clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = silhouette(points, clusters.assigned)
    monkeypatch.setattr(module, "SAMPLE", 150)
    assert silhouette(points, clusters.assigned) == pytest.approx(whole, abs=0.05)


def test_images_that_are_the_same_are_one_cluster() -> None:
    points = np.repeat(np.eye(2, 8, dtype=np.float32), 10, axis=0)
    for wanted in (0, 7):
        clusters = cluster(points, ClusterSettings(clusters=wanted))
        assert len(clusters.centroids) == 2
        assert len(np.unique(clusters.assigned)) == 2


def test_centroids_have_unit_length_and_everyone_is_with_the_nearest(points: np.ndarray, clusters: Clusters) -> None:
    assert np.allclose(np.linalg.norm(clusters.centroids, axis=1), 1, atol=1e-5)
    distance = np.linalg.norm(points[:, None] - clusters.centroids, axis=2)
    assert np.allclose(distance[np.arange(len(points)), clusters.assigned], distance.min(axis=1), atol=1e-6)
    assert set(clusters.assigned) == set(range(len(clusters.centroids)))


def test_what_lies_apart_comes_apart() -> None:
    points, labels = _blobs(4, 25)
    clusters = cluster(points, ClusterSettings(clusters=12))
    assert clusters.purity(labels) == 1
    assert clusters.ami(labels) > 0.5


def test_the_same_seed_gives_the_same_files(points: np.ndarray, tmp_path: Path) -> None:
    for name in ("first", "again"):
        cluster(points, ClusterSettings(seed=3)).save(tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert files == ["assigned.npy", "centroids.npy", "tree.json"]
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@pytest.mark.parametrize("wanted", [0, 1, 2, 17])
def test_what_was_saved_is_loaded(points: np.ndarray, tmp_path: Path, wanted: int) -> None:
    clusters = cluster(points, ClusterSettings(clusters=wanted))
    clusters.save(tmp_path)
    loaded = Clusters.load(tmp_path)
    for name in ("centroids", "assigned", "joined", "representatives", "sections"):
        assert np.array_equal(getattr(loaded, name), getattr(clusters, name)), name
    assert loaded.joined.shape == clusters.joined.shape
    pd.testing.assert_frame_equal(loaded.choice, clusters.choice)


def _inside(node: Node) -> list[int]:
    return [node.number] if not node.children else [number for child in node.children for number in _inside(child)]


def _all(node: Node) -> list[Node]:
    return [node, *(below for child in node.children for below in _all(child))]


def test_the_tree_has_every_image_once_and_sizes_add_up(points: np.ndarray, clusters: Clusters) -> None:
    root = clusters.tree()
    k = len(clusters.centroids)
    assert root.size == len(points)
    assert sorted(node.number for node in _all(root)) == list(range(2 * k - 1))
    assert _inside(root) == list(range(k))
    for node in _all(root):
        assert len(node.children) in (0, 2)
        assert node.size == np.isin(clusters.assigned, _inside(node)).sum()
        if node.children:
            assert node.size == sum(child.size for child in node.children)
            assert node.height >= max(child.height for child in node.children)


def test_a_representative_is_the_image_nearest_to_the_mean_direction(points: np.ndarray, clusters: Clusters) -> None:
    for node in _all(clusters.tree()):
        members = np.flatnonzero(np.isin(clusters.assigned, _inside(node)))
        assert node.representative in members
        similarity = points[members] @ points[members].mean(axis=0)
        assert similarity[members.tolist().index(node.representative)] == pytest.approx(similarity.max(), abs=1e-5)


def test_sections_are_the_tree_cut_and_hold_successive_clusters(clusters: Clusters) -> None:
    assert is_valid_linkage(clusters.joined)
    assert leaves_list(clusters.joined).tolist() == list(range(17))
    assert len(clusters.section_nodes) == round(np.sqrt(17))
    assert adjusted_rand_score(fcluster(clusters.joined, 4, "maxclust"), clusters.sections) == 1
    assert set(np.diff(clusters.sections)) <= {0, 1}
    nodes = {node.number: node for node in _all(clusters.tree())}
    for section, node in enumerate(clusters.section_nodes):
        assert _inside(nodes[node]) == np.flatnonzero(clusters.sections == section).tolist()


@pytest.mark.parametrize("count", [1, 2, 5, 17, 99])
def test_a_cut_tells_every_cluster_its_node(clusters: Clusters, count: int) -> None:
    nodes, group = clusters.cut(count)
    assert len(nodes) == min(count, 17)
    assert clusters.sizes[nodes].sum() == len(clusters.assigned)
    by_number = {node.number: node for node in _all(clusters.tree())}
    for place, node in enumerate(nodes):
        assert _inside(by_number[node]) == np.flatnonzero(group == place).tolist()


def test_the_saved_tree_can_be_read_without_this_library(points: np.ndarray, clusters: Clusters, tmp_path: Path) -> None:
    clusters.save(tmp_path)
    nodes = json.loads((tmp_path / "tree.json").read_text())["nodes"]
    assert nodes[-1]["size"] == len(points)
    for node in nodes[17:]:
        assert node["size"] == sum(nodes[child]["size"] for child in node["children"])


def test_purity_and_ami_agree_with_counting() -> None:
    rng = np.random.default_rng(0)
    assigned, labels = rng.integers(0, 5, 60), rng.integers(0, 4, 60)
    clusters = Clusters(np.eye(6, dtype=np.float32), assigned, np.empty((5, 4)), np.zeros(11, dtype=np.int64))
    majorities = [Counter(labels[assigned == number].tolist()).most_common(1)[0][1] for number in range(5)]
    assert clusters.purity(labels) == pytest.approx(sum(majorities) / 60)
    assert clusters.ami(labels) == pytest.approx(adjusted_mutual_info_score(labels, assigned))


def test_members_come_nearest_first(points: np.ndarray, clusters: Clusters) -> None:
    for number in range(4):
        members = clusters.members(points, number)
        distance = np.linalg.norm(points[members] - clusters.centroids[number], axis=1)
        assert sorted(members.tolist()) == np.flatnonzero(clusters.assigned == number).tolist()
        assert (np.diff(distance) >= -1e-6).all()


def test_a_group_is_called_after_its_most_frequent_class() -> None:
    found = majority(["b", "a", "a", "c", "b", "d"], np.array([0, 0, 0, 1, 1, 2]))
    assert found["label"].tolist() == ["a", "b", "d"]
    assert found["share"].tolist() == pytest.approx([2 / 3, 1 / 2, 1])


def test_a_kind_is_the_deepest_folder_with_more_than_half() -> None:
    labels = ["F/Apple/Gala", "F/Apple/Gala", "F/Pear", "V/Leek", "F/Apple/Gala", "F/Apple/Pink", "F/Plum", "A", "B", "F/Pear/X"]
    found = kind(labels, np.array([0, 0, 0, 1, 2, 2, 2, 3, 3, 4]))
    assert found["label"].tolist() == ["F/Apple/Gala", "V/Leek", "F/Apple", "A", "F/Pear/X"]
    assert found["share"].tolist() == pytest.approx([2 / 3, 1, 2 / 3, 1 / 2, 1])

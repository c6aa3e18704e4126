"""Clusters: the tree counts every image once, sections are successive clusters, and files are read back."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster, is_valid_linkage, leaves_list
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.clusters import Clusters


def _leaves(clusters: Clusters, node: int) -> list[int]:
    """Return the clusters below a node, from left to right."""
    k = len(clusters.centroids)
    return [node] if node < k else [leaf for child in clusters.children[node - k] for leaf in _leaves(clusters, int(child))]


@pytest.mark.parametrize("n_clusters", [0, 1, 2, 17])
def test_saved_clusters_are_loaded(points: np.ndarray, tmp_path: Path, n_clusters: int) -> None:
    clusters = cluster_embeddings(points, ClusterSettings(n_clusters=n_clusters))
    clusters.save(tmp_path)
    loaded = Clusters.load(tmp_path)
    for name in ("centroids", "assignments", "linkage_matrix", "representatives", "sections"):
        assert np.array_equal(getattr(loaded, name), getattr(clusters, name)), name
    assert loaded.linkage_matrix.shape == clusters.linkage_matrix.shape
    pd.testing.assert_frame_equal(loaded.silhouettes, clusters.silhouettes)


def test_tree_has_every_cluster_once_and_sizes_add_up(points: np.ndarray, point_clusters: Clusters) -> None:
    k, sizes = len(point_clusters.centroids), point_clusters.sizes
    root = 2 * k - 2
    assert sizes[root] == len(points)
    assert sorted([root, *point_clusters.children.ravel()]) == list(range(2 * k - 1))
    assert _leaves(point_clusters, root) == list(range(k))
    heights = np.concatenate([np.zeros(k), point_clusters.linkage_matrix[:, 2]])
    for node in range(2 * k - 1):
        assert sizes[node] == np.isin(point_clusters.assignments, _leaves(point_clusters, node)).sum()
        if node >= k:
            children = point_clusters.children[node - k]
            assert len(children) == 2
            assert sizes[node] == sizes[children].sum()
            assert heights[node] >= heights[children].max()


def test_representative_is_nearest_to_the_mean_direction(points: np.ndarray, point_clusters: Clusters) -> None:
    for node, representative in enumerate(point_clusters.representatives):
        members = np.flatnonzero(np.isin(point_clusters.assignments, _leaves(point_clusters, node)))
        assert representative in members
        similarity = points[members] @ points[members].mean(axis=0)
        assert similarity[members.tolist().index(representative)] == pytest.approx(similarity.max(), abs=1e-5)


def test_sections_cut_the_tree_into_successive_clusters(point_clusters: Clusters) -> None:
    assert is_valid_linkage(point_clusters.linkage_matrix)
    assert leaves_list(point_clusters.linkage_matrix).tolist() == list(range(17))
    assert len(point_clusters.section_nodes) == round(np.sqrt(17))
    assert adjusted_rand_score(fcluster(point_clusters.linkage_matrix, 4, "maxclust"), point_clusters.sections) == 1
    assert set(np.diff(point_clusters.sections)) <= {0, 1}
    for section, node in enumerate(point_clusters.section_nodes):
        assert _leaves(point_clusters, node) == np.flatnonzero(point_clusters.sections == section).tolist()


@pytest.mark.parametrize("max_nodes", [1, 2, 5, 17, 99])
def test_cut_returns_the_subtree_of_every_cluster(point_clusters: Clusters, max_nodes: int) -> None:
    nodes, subtrees = point_clusters.cut(max_nodes)
    assert len(nodes) == min(max_nodes, 17)
    assert point_clusters.sizes[nodes].sum() == len(point_clusters.assignments)
    for position, node in enumerate(nodes):
        assert _leaves(point_clusters, node) == np.flatnonzero(subtrees == position).tolist()


def test_joins_lead_from_the_nodes_to_the_root(point_clusters: Clusters) -> None:
    joins = list(point_clusters.joins_above(np.arange(17)))
    assert [join.node for join in joins] == list(range(17, 33))
    for join in joins:
        assert join.positions[0] < join.positions[1]
        assert list(join.children) == point_clusters.children[join.node - 17].tolist()
        assert join.height == point_clusters.linkage_matrix[join.node - 17, 2]


def test_tree_json_can_be_read_without_this_library(points: np.ndarray, point_clusters: Clusters, tmp_path: Path) -> None:
    point_clusters.save(tmp_path)
    nodes = json.loads((tmp_path / "tree.json").read_text())["nodes"]
    assert nodes[-1]["size"] == len(points)
    for node in nodes[17:]:
        assert node["size"] == sum(nodes[child]["size"] for child in node["children"])


def test_purity_and_ami_are_those_of_counting() -> None:
    rng = np.random.default_rng(0)
    assignments, labels = rng.integers(0, 5, 60), rng.integers(0, 4, 60)
    clusters = Clusters(np.eye(6, dtype=np.float32), assignments, np.empty((5, 4)), np.zeros(11, dtype=np.int64), pd.DataFrame())
    majorities = [Counter(labels[assignments == number].tolist()).most_common(1)[0][1] for number in range(5)]
    assert clusters.purity(labels) == pytest.approx(sum(majorities) / 60)
    assert clusters.ami(labels) == pytest.approx(adjusted_mutual_info_score(labels, assignments))


def test_members_are_nearest_first(points: np.ndarray, point_clusters: Clusters) -> None:
    for number in range(4):
        members = point_clusters.members(points, number)
        distances = np.linalg.norm(points[members] - point_clusters.centroids[number], axis=1)
        assert sorted(members.tolist()) == np.flatnonzero(point_clusters.assignments == number).tolist()
        assert (np.diff(distances) >= -1e-6).all()

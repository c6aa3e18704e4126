"""Clusters: centroids of unit length, everyone with the nearest, figures that agree with counting."""

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from deeprank.search.cluster import Clusters, ClusterSettings, cluster


def _blobs(blobs: int, each: int, spread: float = 0.05, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = np.eye(d)[np.arange(blobs) % d] * np.where(np.arange(blobs) < d, 1, -1)[:, None]
    points = np.repeat(centres, each, axis=0) + rng.normal(scale=spread, size=(blobs * each, d))
    order = rng.permutation(len(points))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit[order].astype(np.float32), np.repeat(np.arange(blobs), each)[order]


@pytest.mark.parametrize(("count", "wanted", "found"), [(48, 0, 7), (48, 5, 5), (3, 10, 3), (1, 0, 1)])
def test_there_are_as_many_clusters_as_asked_for_or_the_root(count: int, wanted: int, found: int) -> None:
    points, _ = _blobs(count, 1, d=64)
    assert len(cluster(points, ClusterSettings(clusters=wanted)).centroids) == found


def test_centroids_have_unit_length_and_everyone_is_with_the_nearest() -> None:
    points, _ = _blobs(6, 20, spread=0.4)
    clusters = cluster(points, ClusterSettings(clusters=9))
    assert np.allclose(np.linalg.norm(clusters.centroids, axis=1), 1, atol=1e-5)
    distance = np.linalg.norm(points[:, None] - clusters.centroids, axis=2)
    assert np.allclose(distance[np.arange(len(points)), clusters.assigned], distance.min(axis=1), atol=1e-6)


def test_what_lies_apart_comes_apart() -> None:
    points, labels = _blobs(4, 25)
    clusters = cluster(points, ClusterSettings(clusters=12))
    assert clusters.purity(labels) == 1
    assert clusters.ami(labels) > 0.5


def test_the_same_seed_gives_the_same_clusters() -> None:
    points, _ = _blobs(6, 20, spread=0.5)
    first, again = (cluster(points, ClusterSettings(seed=3)) for _ in range(2))
    assert np.array_equal(first.centroids, again.centroids)
    assert np.array_equal(first.assigned, again.assigned)


def test_purity_and_ami_agree_with_counting() -> None:
    rng = np.random.default_rng(0)
    assigned, labels = rng.integers(0, 5, 60), rng.integers(0, 4, 60)
    clusters = Clusters(np.eye(6, dtype=np.float32), assigned)
    majorities = [Counter(labels[assigned == number].tolist()).most_common(1)[0][1] for number in range(5)]
    assert clusters.purity(labels) == pytest.approx(sum(majorities) / 60)
    assert clusters.ami(labels) == pytest.approx(adjusted_mutual_info_score(labels, assigned))


def test_members_come_nearest_first() -> None:
    points, _ = _blobs(5, 20, spread=0.4)
    clusters = cluster(points, ClusterSettings(clusters=4))
    for number in range(4):
        members = clusters.members(points, number)
        distance = np.linalg.norm(points[members] - clusters.centroids[number], axis=1)
        assert sorted(members.tolist()) == np.flatnonzero(clusters.assigned == number).tolist()
        assert (np.diff(distance) >= -1e-6).all()

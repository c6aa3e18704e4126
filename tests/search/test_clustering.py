"""Clustering: the number of clusters, the nearest centroid for every image, and the same clusters for the same seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from deeprank.search import num_clusters
from deeprank.search.clustering import ClusterSettings, cluster_embeddings, num_clusters_reason
from deeprank.search.clusters import Clusters
from deeprank.search.num_clusters import silhouette
from tests.search.points import blobs


@pytest.mark.parametrize(("count", "n_clusters", "expected"), [(48, 5, 5), (3, 10, 3), (1, 0, 1), (1, 4, 1)])
def test_number_of_clusters_is_the_given_one_or_fewer(count: int, n_clusters: int, expected: int) -> None:
    points, _ = blobs(count, 1, d=64)
    clusters = cluster_embeddings(points, ClusterSettings(n_clusters=n_clusters))
    assert len(clusters.centroids) == expected
    assert not len(clusters.silhouettes)


@pytest.mark.parametrize(("count", "size"), [(3, 40), (12, 20), (16, 8)])
def test_chosen_number_of_clusters_is_that_of_the_blobs(count: int, size: int) -> None:
    points, labels = blobs(count, size, spread=0.08)
    clusters = cluster_embeddings(points, ClusterSettings())
    assert abs(len(clusters.centroids) - count) <= max(1, count // 10)
    assert clusters.purity(labels) > 0.95
    assert adjusted_rand_score(labels, clusters.assignments) > 0.9


def test_number_with_the_greatest_silhouette_is_chosen() -> None:
    points, _ = blobs(6, 30, spread=0.3)
    clusters = cluster_embeddings(points, ClusterSettings())
    silhouettes = clusters.silhouettes
    assert silhouettes["n_clusters"].is_monotonic_increasing
    assert len(silhouettes) > 5
    assert silhouettes["n_clusters"].min() <= np.sqrt(180) / 3
    assert silhouettes["n_clusters"].max() >= 3 * np.sqrt(180)
    best = silhouettes.loc[silhouettes["silhouette"].idxmax()]
    assert best["n_clusters"] == len(clusters.centroids)
    assert best["silhouette"] == pytest.approx(silhouette(points, clusters.assignments))


def test_large_catalogue_has_at_least_sqrt_n_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(num_clusters, "LARGE_CATALOGUE", 300)
    monkeypatch.setattr(num_clusters, "MAX_SILHOUETTE_IMAGES", 200)
    points, _ = blobs(4, 100)
    clusters = cluster_embeddings(points, ClusterSettings(iterations=3))
    assert clusters.silhouettes["n_clusters"].min() == 20
    # At least five sampled images per cluster.
    assert clusters.silhouettes["n_clusters"].max() <= 40
    assert clusters.assignments.shape == (400,)


@pytest.mark.parametrize("n_clusters", [0, 7])
def test_equal_images_are_one_cluster(n_clusters: int) -> None:
    points = np.repeat(np.eye(2, 8, dtype=np.float32), 10, axis=0)
    clusters = cluster_embeddings(points, ClusterSettings(n_clusters=n_clusters))
    assert len(clusters.centroids) == 2
    assert len(np.unique(clusters.assignments)) == 2


def test_every_image_is_in_the_cluster_of_its_nearest_centroid(points: np.ndarray, point_clusters: Clusters) -> None:
    assert np.allclose(np.linalg.norm(point_clusters.centroids, axis=1), 1, atol=1e-5)
    distances = np.linalg.norm(points[:, None] - point_clusters.centroids, axis=2)
    assert np.allclose(distances[np.arange(len(points)), point_clusters.assignments], distances.min(axis=1), atol=1e-6)
    assert set(point_clusters.assignments) == set(range(len(point_clusters.centroids)))


def test_separate_blobs_are_in_separate_clusters() -> None:
    points, labels = blobs(4, 25)
    clusters = cluster_embeddings(points, ClusterSettings(n_clusters=12))
    assert clusters.purity(labels) == 1
    assert clusters.ami(labels) > 0.5


def test_as_many_clusters_as_separate_blobs_are_the_blobs() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), 25))
    points = np.eye(8)[labels] + rng.normal(scale=0.05, size=(100, 8))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    for seed in range(5):
        assert cluster_embeddings(points, ClusterSettings(n_clusters=4, seed=seed)).purity(labels) == 1


def test_same_seed_gives_the_same_files(points: np.ndarray, tmp_path: Path) -> None:
    for name in ("first", "second"):
        cluster_embeddings(points, ClusterSettings(seed=3)).save(tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert files == ["assignments.npy", "centroids.npy", "tree.json"]
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_reason_names_the_number_and_its_silhouette() -> None:
    silhouettes = pd.DataFrame({"n_clusters": [2, 3, 5, 8], "silhouette": [0.1, 0.4, 0.3, 0.2]})
    assert num_clusters_reason(silhouettes) == "3 has the greatest silhouette, 0.4000, of 4 numbers from 2 to 8"
    assert num_clusters_reason(silhouettes[:0]).startswith("set manually")

"""The silhouette is that of scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from deeprank.search import num_clusters
from deeprank.search.clusters import Clusters
from deeprank.search.num_clusters import silhouette


def test_silhouette_is_that_of_scikit_learn(points: np.ndarray, point_clusters: Clusters) -> None:
    expected = silhouette_score(points, point_clusters.assignments, metric="cosine")
    assert silhouette(points, point_clusters.assignments) == pytest.approx(expected, abs=1e-5)
    uneven = np.concatenate([np.zeros(len(points) - 3, dtype=np.int64), [1, 2, 2]])
    assert silhouette(points, uneven) == pytest.approx(silhouette_score(points, uneven, metric="cosine"), abs=1e-5)
    assert silhouette(points, np.zeros(len(points), dtype=np.int64)) == 0


def test_silhouette_of_a_sample_is_close_to_that_of_all(
    points: np.ndarray, point_clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = silhouette(points, point_clusters.assignments)
    monkeypatch.setattr(num_clusters, "MAX_SILHOUETTE_IMAGES", 150)
    assert silhouette(points, point_clusters.assignments) == pytest.approx(expected, abs=0.05)

"""Fixtures: points on the sphere of eight dimensions, and their 17 clusters."""

import numpy as np
import pytest

from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.clusters import Clusters
from tests.search.points import blobs


@pytest.fixture(scope="package")
def points() -> np.ndarray:
    return blobs(12, 20, spread=0.4)[0]


@pytest.fixture(scope="package")
def point_clusters(points: np.ndarray) -> Clusters:
    return cluster_embeddings(points, ClusterSettings(n_clusters=17))

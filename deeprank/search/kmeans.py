"""Spherical k-means."""

import faiss
import numpy as np

from deeprank.search.arrays import Assignments, Vectors

# With few clusters a single start may leave two of them merged; with many, one merged pair hardly counts and restarts take long.
RESTARTS, MIN_CLUSTERS_WITHOUT_RESTARTS = 3, 500


def kmeans(points: Vectors, k: int, *, iterations: int, seed: int) -> tuple[Vectors, Assignments]:
    """Cluster points by spherical k-means.

    Args:
        points: (n, d) of unit length.
        k: number of clusters, at most n.
        iterations: of k-means.
        seed: of the initial centroids.

    Returns:
        Centroids (k or fewer, d) of unit length and the cluster of each point (n,); empty clusters are removed.

    Source: Dhillon & Modha 2001; initialized by k-means++ (Arthur & Vassilvitskii 2007).

    """
    kmeans = faiss.Kmeans(
        points.shape[1],
        k,
        niter=iterations,
        nredo=RESTARTS if k < MIN_CLUSTERS_WITHOUT_RESTARTS else 1,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
    )
    kmeans.train(points)
    used, assignments = np.unique(kmeans.index.search(points, 1)[1][:, 0], return_inverse=True)
    return np.asarray(kmeans.centroids)[used], assignments.astype(np.int64)

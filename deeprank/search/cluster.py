"""Clusters of embeddings by spherical k-means."""

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt
from pydantic import Field
from sklearn.metrics import adjusted_mutual_info_score

from deeprank.settings import Settings


class ClusterSettings(Settings):
    """How to cluster and index.

    Attributes:
        clusters: how many; 0: the square root of the number of photographs.
        iterations: of k-means.
        exact_below: up to so many photographs the index is exact, above it looks into the nearest clusters only.
        probes: clusters looked into.
        seed: of k-means.

    """

    clusters: int = Field(0, ge=0)
    iterations: int = Field(25, ge=1)
    exact_below: int = Field(20_000, ge=1)
    probes: int = Field(8, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Clusters:
    """Centroids (k, d) of unit length, and each embedding's cluster (n,)."""

    centroids: npt.NDArray[np.float32]
    assigned: npt.NDArray[np.int64]

    def purity(self, labels: npt.NDArray[np.int64]) -> float:
        """Return the share of photographs in clusters whose most frequent class is their own."""
        table = np.zeros((len(self.centroids), labels.max() + 1), dtype=np.int64)
        np.add.at(table, (self.assigned, labels), 1)
        return float(table.max(axis=1).sum() / len(labels))

    def ami(self, labels: npt.NDArray[np.int64]) -> float:
        """Return the adjusted mutual information of clusters and classes: 0 by chance, 1 when the same."""
        return float(adjusted_mutual_info_score(labels, self.assigned))

    def members(self, embeddings: npt.NDArray[np.float32], cluster: int) -> npt.NDArray[np.int64]:
        """Return the indices of a cluster's embeddings, nearest to its centroid first."""
        inside = np.flatnonzero(self.assigned == cluster)
        return inside[np.argsort(-(embeddings[inside] @ self.centroids[cluster]), kind="stable")]


def cluster(embeddings: npt.NDArray[np.float32], settings: ClusterSettings) -> Clusters:
    """Cluster embeddings (n, d) of unit length by spherical k-means (Dhillon & Modha 2001)."""
    k = min(settings.clusters or round(np.sqrt(len(embeddings))), len(embeddings))
    # Three random starts: one alone may leave two heaps in one cluster.
    options = {"niter": settings.iterations, "nredo": 3, "seed": settings.seed, "spherical": True, "min_points_per_centroid": 1}
    kmeans = faiss.Kmeans(embeddings.shape[1], k, **options)
    kmeans.train(embeddings)
    assigned = kmeans.index.search(embeddings, 1)[1][:, 0]
    return Clusters(np.ascontiguousarray(kmeans.centroids), assigned.astype(np.int64))

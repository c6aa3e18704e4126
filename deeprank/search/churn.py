"""Churn: how far the images of an index are from those that its clusters were computed from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeprank.search.arrays import Assignments, Vectors
from deeprank.search.clusters import Clusters

# From these on, clusters and index should be built again.
MAX_CHURN, MAX_CENTROID_DRIFT = 0.2, 1.25
DISTANCE_BLOCK = 65_536


@dataclass(frozen=True)
class Churn:
    """What was added to an index and removed from it since it was built.

    Attributes:
        built_from, added, removed: numbers of images.
        centroid_distance: expected distance of images like those that it was built from to their centroid; 0 where it is unknown.
        added_centroid_distance: mean distance of the added images to their centroid.

    """

    built_from: int
    added: int = 0
    removed: int = 0
    centroid_distance: float = 0.0
    added_centroid_distance: float = 0.0

    @property
    def share(self) -> float:
        """Images added or removed, as a share of those that the index was built from."""
        return (self.added + self.removed) / self.built_from

    @property
    def centroid_drift(self) -> float:
        """Mean distance of the added images to their centroid, relative to that of the others; 1 where either is unknown."""
        return self.added_centroid_distance / self.centroid_distance if self.added and self.centroid_distance else 1.0

    @property
    def rebuild_reason(self) -> str:
        """Why clusters and index should be built again; empty where they need not."""
        if self.share >= MAX_CHURN:
            return f"{self.share:.0%} of the {self.built_from:,} images that the index was built from were added or removed since"
        if self.centroid_drift >= MAX_CENTROID_DRIFT:
            return f"added images are {self.centroid_drift:.2f} times as far from their centroids as those that the index was built from"
        return ""


def expected_centroid_distance(vectors: Vectors, clusters: Clusters) -> float:
    """Return the mean distance at which other images of the same kind are expected from their centroid; 0 if no cluster has two.

    Args:
        vectors: (n, d) that were clustered.
        clusters: of the vectors.

    """
    sizes = np.bincount(clusters.assignments)[clusters.assignments]
    is_shared = sizes > 1
    # A centroid is the mean of its s images and therefore nearer to them than to others; that of a single image says nothing.
    bias = np.sqrt((sizes[is_shared] - 1) / (sizes[is_shared] + 1))
    distances = centroid_distances(vectors, clusters.centroids, clusters.assignments)[is_shared]
    return float((distances / bias).mean()) if is_shared.any() else 0.0


def centroid_distances(vectors: Vectors, centroids: Vectors, assignments: Assignments) -> npt.NDArray[np.float64]:
    """Return the distance of each vector to the centroid of its cluster, (n,)."""
    distances = np.empty(len(vectors))
    # In blocks, so that no second copy of a million vectors is in memory.
    for start in range(0, len(vectors), DISTANCE_BLOCK):
        block = slice(start, start + DISTANCE_BLOCK)
        distances[block] = np.linalg.norm(vectors[block] - centroids[assignments[block]], axis=1)
    return distances

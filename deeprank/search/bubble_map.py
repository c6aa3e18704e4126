"""The map on the page of clusters: a circle for each cluster, similar clusters near each other, no circle over another."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeprank.plotting.projection import project_to_plane
from deeprank.search.clusters import Clusters

# Width and height, in units of 1 % of the width.
MAP_SIZE = np.array([100.0, 62.0])
# The map keeps free this much at each edge.
MAP_MARGIN = 7.0
MIN_RADIUS, MAX_RADIUS = 0.9, 6.0
# The area of the map relative to that of all circles, before their radii are limited.
MAP_TO_CIRCLES = 3
MIN_GAP = 0.4
MAX_STEPS, STEP_SIZE = 200, 0.4


@dataclass(frozen=True)
class Bubble:
    """The circle of a cluster.

    Attributes:
        cluster: its number.
        x, y: of its center, in percent of the map's width and height.
        width: in percent of the map's width.

    """

    cluster: int
    x: float
    y: float
    width: float


def bubble_map(clusters: Clusters, numbers: npt.NDArray[np.int64]) -> list[Bubble]:
    """Lay out the circles of some clusters, their areas in proportion to their sizes; similar clusters lie near each other."""
    root_sizes = np.sqrt(clusters.sizes[numbers].astype(np.float64))
    radii = np.maximum(root_sizes * np.sqrt(MAP_SIZE.prod() / MAP_TO_CIRCLES / (np.pi * (root_sizes**2).sum())), MIN_RADIUS)
    radii = np.minimum(radii, MAX_RADIUS)
    points = project_to_plane(clusters.centroids[numbers]).astype(np.float64)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    scaled = np.where(extent > 0, (points - low) / np.where(extent > 0, extent, 1), 0.5) * (MAP_SIZE - 2 * MAP_MARGIN) + MAP_MARGIN
    centers = separate_circles(scaled, radii)
    return [
        Bubble(int(cluster), float(x / MAP_SIZE[0] * 100), float(y / MAP_SIZE[1] * 100), float(2 * radius))
        for cluster, (x, y), radius in zip(numbers, centers, radii, strict=True)
    ]


def separate_circles(centers: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Push circles apart in small steps, until none overlap or the number of steps is reached; returns their centers (n, 2)."""
    min_distances = radii[:, None] + radii + MIN_GAP
    np.fill_diagonal(min_distances, 0)
    for _ in range(MAX_STEPS):
        differences = centers[:, None] - centers
        distances = np.maximum(np.linalg.norm(differences, axis=2), 1e-6)
        overlaps = np.maximum(min_distances - distances, 0)
        if not overlaps.any():
            break
        centers = centers + (differences * (STEP_SIZE * overlaps / distances)[:, :, None]).sum(axis=1)
        centers = np.clip(centers, radii[:, None], MAP_SIZE - radii[:, None])
    return centers

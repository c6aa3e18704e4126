"""How many clusters: the number with the greatest silhouette."""

import numpy as np
import pandas as pd

from deeprank.search.arrays import Assignments, Vectors
from deeprank.search.cluster_tree import cluster_sums
from deeprank.search.kmeans import kmeans

MAX_SILHOUETTE_IMAGES = 10_000
# A candidate k leaves each cluster at least this many sampled images on average.
MIN_IMAGES_PER_CLUSTER = 5
# Candidates lie between sqrt(n) / 4 and 4 sqrt(n).
MAX_ROOT_FACTOR = 4
# A larger catalogue gets at least sqrt(n) clusters: with fewer, each inverted list of an index would be long.
LARGE_CATALOGUE = 50_000


def silhouettes_by_k(embeddings: Vectors, *, iterations: int, seed: int) -> pd.DataFrame:
    """Return the silhouette of each candidate number of clusters: first numbers a factor of √2 apart, then more around the best.

    Args:
        embeddings: (n, d) of unit length; at most 10,000 of them are clustered.
        iterations: of k-means.
        seed: of the sample and of k-means.

    Returns:
        Columns n_clusters (ascending) and silhouette; no rows where the images are too few for any candidate.

    """
    sample = embeddings[np.sort(np.random.default_rng(seed).permutation(len(embeddings))[:MAX_SILHOUETTE_IMAGES])]
    root = np.sqrt(len(embeddings))
    lowest = max(2, round(root if len(embeddings) >= LARGE_CATALOGUE else root / MAX_ROOT_FACTOR))
    highest = min(round(MAX_ROOT_FACTOR * root), len(sample) // (MIN_IMAGES_PER_CLUSTER if len(embeddings) > MAX_SILHOUETTE_IMAGES else 2))
    measured: dict[int, float] = {}
    candidates = _geometric_range(lowest, highest, 1 + round(2 * np.log2(highest / lowest))) if lowest <= highest else []
    for _ in range(2 if candidates else 0):
        for k in candidates:
            if k not in measured:
                measured[k] = silhouette(sample, kmeans(sample, k, iterations=iterations, seed=seed)[1])
        tried = sorted(measured)
        best = tried.index(max(tried, key=lambda k: measured[k]))
        candidates = _geometric_range(tried[max(0, best - 1)], tried[min(len(tried) - 1, best + 1)], 7)
    return pd.DataFrame({"n_clusters": sorted(measured), "silhouette": [measured[k] for k in sorted(measured)]})


def _geometric_range(lowest: int, highest: int, count: int) -> list[int]:
    return [int(k) for k in np.unique(np.geomspace(lowest, highest, count).round())]


def silhouette(embeddings: Vectors, assignments: Assignments, seed: int = 0) -> float:
    """Return the mean silhouette by cosine distance: 1 at best, -1 at worst, 0 where there is only one cluster.

    The mean distance of an image to a cluster is 1 - its cosine to the cluster's mean. This takes n x k distances instead of n².

    Args:
        embeddings: (n, d) of unit length.
        assignments: (n,) cluster of each, 0 … k - 1, none of them empty; an image alone in its cluster counts as 0.
        seed: of the sample; the mean is over at most 10,000 images.

    Source: Rousseeuw 1987, "Silhouettes".

    """
    sizes = np.bincount(assignments)
    if len(sizes) < 2:
        return 0.0
    rows = np.random.default_rng(seed).permutation(len(embeddings))[:MAX_SILHOUETTE_IMAGES]
    own, positions = assignments[rows], np.arange(len(rows))
    distances = 1 - embeddings[rows] @ (cluster_sums(embeddings, assignments) / sizes[:, None].astype(np.float32)).T
    # The mean over the own cluster leaves out the distance of the image to itself, which is 0.
    intra = distances[positions, own] * sizes[own] / np.maximum(sizes[own] - 1, 1)
    distances[positions, own] = np.inf
    nearest_other = distances.min(axis=1)
    larger = np.maximum(intra, nearest_other)
    values = np.divide(nearest_other - intra, larger, out=np.zeros_like(larger), where=(larger > 0) & (sizes[own] > 1))
    return float(values.mean())

"""The tree over the clusters: Ward's linkage of the centroids, and a representative image of each node."""

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.sparse import csr_array

from deeprank.row_numbers import CatalogueRows
from deeprank.search.arrays import Assignments, Vectors


def link_clusters(centroids: Vectors, assignments: Assignments) -> tuple[Vectors, Assignments, npt.NDArray[np.float64]]:
    """Join the clusters to a binary tree by Ward's linkage, and renumber them in the order of its leaves.

    All clusters have the same weight, because a rare product counts as much as a frequent one. Ward's linkage yields sections of
    similar size; average linkage yields one large section and single clusters.

    Args:
        centroids: (k, d) of unit length.
        assignments: (n,) cluster of each image.

    Returns:
        The centroids and assignments renumbered, and the linkage matrix (k - 1, 4) of SciPy.

    """
    k = len(centroids)
    if k == 1:
        return centroids, assignments, np.empty((0, 4))
    linkage_matrix = linkage(centroids.astype(np.float64), "ward")
    leaves = leaves_list(linkage_matrix)
    new_number = np.arange(2 * k - 1)
    new_number[leaves] = np.arange(k)
    linkage_matrix[:, :2] = new_number[linkage_matrix[:, :2].astype(np.int64)]
    return np.ascontiguousarray(centroids[leaves]), new_number[assignments], linkage_matrix


def node_representatives(embeddings: Vectors, assignments: Assignments, linkage_matrix: npt.NDArray[np.float64]) -> CatalogueRows:
    """Return for each node the image nearest to the mean direction of the node's images; of equally near ones the first.

    Args:
        embeddings: (n, d) of unit length.
        assignments: (n,) cluster of each.
        linkage_matrix: (k - 1, 4), as of `link_clusters`.

    Returns:
        (2k - 1,) rows of `embeddings`.

    """
    k = len(linkage_matrix) + 1
    sums = np.zeros((2 * k - 1, embeddings.shape[1]), dtype=np.float32)
    sums[:k] = cluster_sums(embeddings, assignments)
    parent = np.full(2 * k - 1, -1)
    for node, (left, right) in enumerate(linkage_matrix[:, :2].astype(np.int64), start=k):
        sums[node] = sums[left] + sums[right]
        parent[[left, right]] = node
    directions = np.ascontiguousarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12))
    representatives, best = np.zeros(2 * k - 1, dtype=np.int64), np.full(2 * k - 1, -np.inf)
    order = np.argsort(assignments, kind="stable")
    ends = np.searchsorted(assignments[order], np.arange(k), side="right")
    for cluster in range(k):
        members = order[ends[cluster - 1] if cluster else 0 : ends[cluster]]
        ancestors = [cluster]
        while parent[ancestors[-1]] >= 0:
            ancestors.append(int(parent[ancestors[-1]]))
        # One product for all nodes above the cluster: each embedding is read once.
        similarities = embeddings[members] @ directions[ancestors].T
        for node, i, similarity in zip(ancestors, similarities.argmax(axis=0), similarities.max(axis=0), strict=True):
            if similarity > best[node]:
                best[node], representatives[node] = similarity, members[i]
    return CatalogueRows(representatives)


def cluster_sums(points: Vectors, assignments: Assignments) -> Vectors:
    """Return the sum of the points (n, d) of each cluster 0 … k - 1, (k, d)."""
    membership = csr_array((np.ones(len(assignments), dtype=np.float32), (assignments, np.arange(len(assignments)))))
    sums: Vectors = membership @ points
    return sums

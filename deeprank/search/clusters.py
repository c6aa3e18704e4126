"""The clusters of a catalogue and the tree above them: their numbers and their files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import fcluster, leaders
from sklearn.metrics import adjusted_mutual_info_score

from deeprank.row_numbers import CatalogueRows
from deeprank.search.arrays import Assignments, Vectors

CENTROIDS, ASSIGNMENTS, TREE = "centroids.npy", "assignments.npy", "tree.json"

# (m,) numbers of nodes of the tree: 0 … k - 1 are the clusters, k … 2k - 2 the joins in their order, 2k - 2 the root.
Nodes = npt.NDArray[np.int64]


class Join(NamedTuple):
    """A node of the tree with two children, and where it lies when the tree is drawn.

    Attributes:
        node: its number.
        children: numbers of its children, left and right.
        positions: positions of its children, left and right; its own is their mean.
        height: Ward's distance of its children.

    """

    node: int
    children: tuple[int, int]
    positions: tuple[float, float]
    height: float


@dataclass(frozen=True)
class Clusters:
    """The clusters of n images and the tree above them.

    No cluster is empty. Clusters are numbered so that each node of the tree holds successive ones.

    Attributes:
        centroids: (k, d) of unit length.
        assignments: (n,) cluster of each image.
        linkage_matrix: (k - 1, 4) the tree, as SciPy's `linkage` returns it.
        representatives: (2k - 1,) for each node the image nearest to the mean direction of its images.
        silhouettes: columns n_clusters and silhouette, a row for each number of clusters tried; no rows where none was tried.

    """

    centroids: Vectors
    assignments: Assignments
    linkage_matrix: npt.NDArray[np.float64]
    representatives: CatalogueRows
    silhouettes: pd.DataFrame

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of images in each node, (2k - 1,)."""
        sizes = np.zeros(len(self.representatives), dtype=np.int64)
        k = len(self.centroids)
        sizes[:k] = np.bincount(self.assignments, minlength=k)
        for node, (left, right) in enumerate(self.children, start=k):
            sizes[node] = sizes[left] + sizes[right]
        return sizes

    @cached_property
    def children(self) -> Nodes:
        """The two children of each node from k on, (k - 1, 2)."""
        return self.linkage_matrix[:, :2].astype(np.int64)

    def cut(self, max_nodes: int) -> tuple[Nodes, npt.NDArray[np.int64]]:
        """Cut the tree into subtrees.

        Returns:
            The root nodes of the subtrees from left to right (m,), m at most `max_nodes`, and the subtree of each cluster (k,).

        """
        k = len(self.centroids)
        if k == 1:
            return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        flat = fcluster(self.linkage_matrix, max_nodes, "maxclust")
        nodes, numbers = leaders(self.linkage_matrix, flat)
        # From left to right is the order of each subtree's first cluster.
        _, first = np.unique(flat, return_index=True)
        position = np.empty(len(first), dtype=np.int64)
        position[np.argsort(first)] = np.arange(len(first))
        ordered = np.empty(len(first), dtype=np.int64)
        ordered[position[numbers - 1]] = nodes
        return ordered, position[flat - 1]

    @cached_property
    def _section_cut(self) -> tuple[Nodes, npt.NDArray[np.int64]]:
        return self.cut(round(np.sqrt(len(self.centroids))))

    @property
    def section_nodes(self) -> Nodes:
        """The node of each section, (s,): the tree is cut into about sqrt(k) sections."""
        return self._section_cut[0]

    @property
    def sections(self) -> npt.NDArray[np.int64]:
        """The section of each cluster, (k,)."""
        return self._section_cut[1]

    def joins_above(self, nodes: Nodes) -> Iterator[Join]:
        """Yield the joins above nodes of the tree, from the lowest to the root.

        Args:
            nodes: from left to right, as `cut` returns them; their positions are 0, 1, ….

        """
        position = {int(node): float(i) for i, node in enumerate(nodes)}
        k = len(self.centroids)
        for node, ((left, right), height) in enumerate(zip(self.children.tolist(), self.linkage_matrix[:, 2], strict=True), start=k):
            if left in position and right in position:
                position[node] = (position[left] + position[right]) / 2
                yield Join(node, (left, right), (position[left], position[right]), float(height))

    def purity(self, labels: npt.NDArray[np.int64]) -> float:
        """Return the share of images that have the most frequent label of their cluster; `labels` (n,) are integers from 0."""
        counts = np.zeros((len(self.centroids), labels.max() + 1), dtype=np.int64)
        np.add.at(counts, (self.assignments, labels), 1)
        return float(counts.max(axis=1).sum() / len(labels))

    def ami(self, labels: npt.NDArray[np.int64]) -> float:
        """Return the adjusted mutual information of clusters and labels (n,): 0 by chance, 1 where they are the same partition."""
        return float(adjusted_mutual_info_score(labels, self.assignments))

    def members(self, embeddings: Vectors, cluster: int) -> CatalogueRows:
        """Return the rows of a cluster's images, nearest to its centroid first; `embeddings` (n, d) are those that were clustered."""
        inside = np.flatnonzero(self.assignments == cluster)
        return CatalogueRows(inside[np.argsort(-(embeddings[inside] @ self.centroids[cluster]), kind="stable")])

    def save(self, folder: Path) -> None:
        """Write centroids.npy, assignments.npy and tree.json (nodes by number, and silhouettes); equal clusters give equal bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / CENTROIDS, self.centroids)
        np.save(folder / ASSIGNMENTS, self.assignments)
        k = len(self.centroids)
        nodes: list[dict[str, object]] = [
            {"size": int(size), "representative": int(representative)}
            for size, representative in zip(self.sizes, self.representatives, strict=True)
        ]
        for node, (left, right), height in zip(nodes[k:], self.children, self.linkage_matrix[:, 2], strict=True):
            node |= {"children": [int(left), int(right)], "height": float(height)}
        (folder / TREE).write_text(json.dumps({"nodes": nodes, "silhouettes": self.silhouettes.to_dict("list")}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Clusters":
        """Read the files that `save` wrote."""
        centroids, assignments = np.load(folder / CENTROIDS), np.load(folder / ASSIGNMENTS)
        tree = json.loads((folder / TREE).read_text())
        # The fourth column of a linkage matrix: clusters below each node.
        counts = [1] * len(centroids)
        linkage_rows = []
        for node in tree["nodes"][len(centroids) :]:
            left, right = node["children"]
            counts.append(counts[left] + counts[right])
            linkage_rows.append((left, right, node["height"], counts[-1]))
        linkage_matrix = np.array(linkage_rows, dtype=np.float64).reshape(-1, 4)
        representatives = CatalogueRows(np.array([node["representative"] for node in tree["nodes"]], dtype=np.int64))
        return cls(centroids, assignments, linkage_matrix, representatives, pd.DataFrame(tree["silhouettes"]))

"""Clusters of embeddings by spherical k-means, how many of them the embeddings decide, and a tree over them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field
from scipy.cluster.hierarchy import fcluster, leaders, leaves_list, linkage
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_mutual_info_score

from deeprank.settings import Settings

# Images that decide how many clusters; each candidate has at least FEWEST of them a cluster.
SAMPLE, FEWEST = 10_000, 5
# Candidates lie up to so many times below and above the root of the number of images.
SPAN = 4
# From so many images on there are no fewer clusters than the root: with fewer, each inverted list of an index would be long.
LISTS_FROM = 50_000
MANY = 500
CENTROIDS, ASSIGNED, TREE = "centroids.npy", "assigned.npy", "tree.json"

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class ClusterSettings(Settings):
    """How to cluster.

    Attributes:
        clusters: how many at most; 0: as many as make the silhouette greatest.
        iterations: of k-means.
        seed: of k-means.

    """

    clusters: int = Field(0, ge=0)
    iterations: int = Field(25, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Node:
    """A node of the tree: a cluster, or two nodes that were joined.

    Attributes:
        number: 0 … k - 1 for clusters, from there on in the order of joining; the root is 2k - 2.
        size: images in it.
        representative: the image nearest to their mean direction, an index into the embeddings.
        height: at which its children were joined (Ward's distance of centroids); 0 for a cluster.
        children: none, or two.

    """

    number: int
    size: int
    representative: int
    height: float
    children: tuple["Node", ...]


@dataclass(frozen=True)
class Clusters:
    """Clusters, none of them empty, numbered so that each node of the tree holds successive ones.

    Attributes:
        centroids: (k, d) of unit length.
        assigned: (n,) each embedding's cluster.
        joined: (k - 1, 4) the tree, as SciPy's `linkage` has it.
        representatives: (2k - 1,) of each node, see `Node`.
        choice: columns k and silhouette, a row each number of clusters tried; no rows where the number was given.

    """

    centroids: Floats
    assigned: Integers
    joined: npt.NDArray[np.float64]
    representatives: Integers
    choice: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"k": [], "silhouette": []}))

    @cached_property
    def sizes(self) -> Integers:
        """Images in each node, (2k - 1,)."""
        sizes = np.zeros(len(self.representatives), dtype=np.int64)
        k = len(self.centroids)
        sizes[:k] = np.bincount(self.assigned, minlength=k)
        for node, (left, right) in enumerate(self.children, start=k):
            sizes[node] = sizes[left] + sizes[right]
        return sizes

    @cached_property
    def children(self) -> Integers:
        """The two nodes that each node from k on was joined of, (k - 1, 2)."""
        return self.joined[:, :2].astype(np.int64)

    def cut(self, count: int) -> tuple[Integers, Integers]:
        """Cut the tree; returns its nodes (m,) from left to right, m at most count, and which of them each cluster is in (k,)."""
        k = len(self.centroids)
        if k == 1:
            return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        flat = fcluster(self.joined, count, "maxclust")
        nodes, numbers = leaders(self.joined, flat)
        _, first = np.unique(flat, return_index=True)
        # From left to right: in the order of each one's first cluster.
        place = np.empty(len(first), dtype=np.int64)
        place[np.argsort(first)] = np.arange(len(first))
        ordered = np.empty(len(first), dtype=np.int64)
        ordered[place[numbers - 1]] = nodes
        return ordered, place[flat - 1]

    @cached_property
    def _sections(self) -> tuple[Integers, Integers]:
        return self.cut(round(np.sqrt(len(self.centroids))))

    @property
    def section_nodes(self) -> Integers:
        """The node of each section, (s,): the tree cut into about the root of the number of clusters."""
        return self._sections[0]

    @property
    def sections(self) -> Integers:
        """Which section each cluster is in, (k,)."""
        return self._sections[1]

    def tree(self) -> Node:
        """Return the root of the tree."""
        nodes = [Node(i, int(self.sizes[i]), int(self.representatives[i]), 0.0, ()) for i in range(len(self.centroids))]
        for (left, right), height in zip(self.children, self.joined[:, 2], strict=True):
            i = len(nodes)
            nodes.append(Node(i, int(self.sizes[i]), int(self.representatives[i]), float(height), (nodes[left], nodes[right])))
        return nodes[-1]

    def purity(self, labels: Integers) -> float:
        """Return the share of images in clusters whose most frequent class is their own."""
        table = np.zeros((len(self.centroids), labels.max() + 1), dtype=np.int64)
        np.add.at(table, (self.assigned, labels), 1)
        return float(table.max(axis=1).sum() / len(labels))

    def ami(self, labels: Integers) -> float:
        """Return the adjusted mutual information of clusters and classes: 0 by chance, 1 when the same."""
        return float(adjusted_mutual_info_score(labels, self.assigned))

    def members(self, embeddings: Floats, cluster: int) -> Integers:
        """Return the indices of a cluster's embeddings, nearest to its centroid first."""
        inside = np.flatnonzero(self.assigned == cluster)
        return inside[np.argsort(-(embeddings[inside] @ self.centroids[cluster]), kind="stable")]

    def save(self, folder: Path) -> None:
        """Write centroids.npy, assigned.npy and tree.json (nodes by number, and the choice); the same clusters give the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / CENTROIDS, self.centroids)
        np.save(folder / ASSIGNED, self.assigned)
        k = len(self.centroids)
        nodes: list[dict[str, object]] = [
            {"size": int(size), "representative": int(representative)}
            for size, representative in zip(self.sizes, self.representatives, strict=True)
        ]
        for node, (left, right), height in zip(nodes[k:], self.children, self.joined[:, 2], strict=True):
            node |= {"children": [int(left), int(right)], "height": float(height)}
        (folder / TREE).write_text(json.dumps({"nodes": nodes, "choice": self.choice.to_dict("list")}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Clusters":
        """Read what `save` wrote."""
        centroids, assigned = np.load(folder / CENTROIDS), np.load(folder / ASSIGNED)
        tree = json.loads((folder / TREE).read_text())
        clusters = [1] * len(centroids)
        joined = []
        for node in tree["nodes"][len(centroids) :]:
            left, right = node["children"]
            clusters.append(clusters[left] + clusters[right])
            joined.append((left, right, node["height"], clusters[-1]))
        representatives = np.array([node["representative"] for node in tree["nodes"]], dtype=np.int64)
        return cls(centroids, assigned, np.array(joined, dtype=np.float64).reshape(-1, 4), representatives, pd.DataFrame(tree["choice"]))


def cluster(embeddings: Floats, settings: ClusterSettings) -> Clusters:
    """Cluster embeddings by spherical k-means, and join the clusters to a tree.

    Args:
        embeddings: (n, d) of unit length, n > 0.
        settings: how.

    Source: Dhillon & Modha 2001; started by k-means++ (Arthur & Vassilvitskii 2007).

    """
    choice = _try_numbers(embeddings, settings)
    if len(choice):
        k = int(choice["k"][choice["silhouette"].argmax()])
    else:
        k = min(settings.clusters or round(np.sqrt(len(embeddings))), len(embeddings))
    centroids, assigned = kmeans(embeddings, k, settings)
    centroids, assigned, joined = _join(centroids, assigned)
    return Clusters(centroids, assigned, joined, _representatives(embeddings, assigned, joined), choice)


def kmeans(points: Floats, k: int, settings: ClusterSettings) -> tuple[Floats, Integers]:
    """Return centroids (k or fewer, as empty ones are left out, d) of points (n, d), and each point's cluster (n,)."""
    kmeans = faiss.Kmeans(
        points.shape[1],
        k,
        niter=settings.iterations,
        # Of few clusters one start may leave two heaps together; of many no single one counts much, and starts take long.
        nredo=3 if k < MANY else 1,
        seed=settings.seed,
        spherical=True,
        min_points_per_centroid=1,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
    )
    kmeans.train(points)
    used, assigned = np.unique(kmeans.index.search(points, 1)[1][:, 0], return_inverse=True)
    return np.asarray(kmeans.centroids)[used], assigned.astype(np.int64)


def _try_numbers(embeddings: Floats, settings: ClusterSettings) -> pd.DataFrame:
    """Return the silhouette (of at most 10,000 images) of several numbers of clusters; no rows where none is to be tried.

    First numbers a factor of √2 apart, then more of them around the best.
    """
    sample = embeddings[np.sort(np.random.default_rng(settings.seed).permutation(len(embeddings))[:SAMPLE])]
    root = np.sqrt(len(embeddings))
    lowest = max(2, round(root if len(embeddings) >= LISTS_FROM else root / SPAN))
    highest = min(round(SPAN * root), len(sample) // (FEWEST if len(embeddings) > SAMPLE else 2))
    if settings.clusters or highest < lowest:
        return pd.DataFrame({"k": [], "silhouette": []})
    found: dict[int, float] = {}
    candidates = _numbers(lowest, highest, 1 + round(2 * np.log2(highest / lowest)))
    for _ in range(2):
        for k in candidates:
            if k not in found:
                found[k] = silhouette(sample, kmeans(sample, k, settings)[1])
        tried = sorted(found)
        best = tried.index(max(tried, key=lambda k: found[k]))
        candidates = _numbers(tried[max(0, best - 1)], tried[min(len(tried) - 1, best + 1)], 7)
    return pd.DataFrame({"k": sorted(found), "silhouette": [found[k] for k in sorted(found)]})


def _numbers(lowest: int, highest: int, count: int) -> list[int]:
    return [int(k) for k in np.unique(np.geomspace(lowest, highest, count).round())]


def silhouette(embeddings: Floats, assigned: Integers, seed: int = 0) -> float:
    """Return the mean silhouette by cosine distance, 1 at best, -1 at worst; of more than 10,000 images so many are drawn.

    The mean distance to a cluster is 1 - the cosine to its mean, so that it takes n x k distances and not n².

    Args:
        embeddings: (n, d) of unit length.
        assigned: (n,) cluster of each, 0 … k - 1, none of them empty.
        seed: which are drawn.

    Source: Rousseeuw 1987, "Silhouettes"; a cluster of one image, and one cluster alone, have 0.

    """
    size = np.bincount(assigned)
    if len(size) < 2:
        return 0.0
    rows = np.random.default_rng(seed).permutation(len(embeddings))[:SAMPLE]
    own, place = assigned[rows], np.arange(len(rows))
    apart = 1 - embeddings[rows] @ (_sums(embeddings, assigned) / size[:, None].astype(np.float32)).T
    # Its distance to itself, 0, does not count.
    within = apart[place, own] * size[own] / np.maximum(size[own] - 1, 1)
    apart[place, own] = np.inf
    without = apart.min(axis=1)
    larger = np.maximum(within, without)
    value = np.divide(without - within, larger, out=np.zeros_like(larger), where=(larger > 0) & (size[own] > 1))
    return float(value.mean())


def _join(centroids: Floats, assigned: Integers) -> tuple[Floats, Integers, npt.NDArray[np.float64]]:
    """Return the clusters numbered along their tree, and the tree.

    Ward's linkage, every cluster counting the same: sections come out of like size, where average linkage leaves single
    clusters beside one large section; and a rare product is as much of a kind as a frequent one.
    """
    k = len(centroids)
    if k == 1:
        return centroids, assigned, np.empty((0, 4))
    joined = linkage(centroids.astype(np.float64), "ward")
    leaves = leaves_list(joined)
    place = np.arange(2 * k - 1)
    place[leaves] = np.arange(k)
    joined[:, :2] = place[joined[:, :2].astype(np.int64)]
    return np.ascontiguousarray(centroids[leaves]), place[assigned], joined


def _representatives(embeddings: Floats, assigned: Integers, joined: npt.NDArray[np.float64]) -> Integers:
    """Return for each node the image nearest to the mean direction of all in it; of equal ones the first."""
    k = len(joined) + 1
    sums = np.zeros((2 * k - 1, embeddings.shape[1]), dtype=np.float32)
    sums[:k] = _sums(embeddings, assigned)
    above = np.full(2 * k - 1, -1)
    for node, (left, right) in enumerate(joined[:, :2].astype(np.int64), start=k):
        sums[node] = sums[left] + sums[right]
        above[[left, right]] = node
    means = _directions(sums)
    nearest, best = np.zeros(2 * k - 1, dtype=np.int64), np.full(2 * k - 1, -np.inf)
    order = np.argsort(assigned, kind="stable")
    ends = np.searchsorted(assigned[order], np.arange(k), side="right")
    for number in range(k):
        members = order[ends[number - 1] if number else 0 : ends[number]]
        nodes = [number]
        while above[nodes[-1]] >= 0:
            nodes.append(int(above[nodes[-1]]))
        # Once through each image, for all nodes that it is in.
        near = embeddings[members] @ means[nodes].T
        top = near.argmax(axis=0)
        for node, i, similarity in zip(nodes, top, near.max(axis=0), strict=True):
            if similarity > best[node]:
                best[node], nearest[node] = similarity, members[i]
    return nearest


def _sums(points: Floats, group: Integers) -> Floats:
    """Return the sum of the points (n, d) of each group 0 … m - 1, (m, d)."""
    which = csr_array((np.ones(len(group), dtype=np.float32), (group, np.arange(len(group)))))
    sums: Floats = which @ points
    return sums


def _directions(sums: Floats) -> Floats:
    return np.ascontiguousarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12))


def majority(labels: Sequence[str], group: Integers) -> pd.DataFrame:
    """Return label, the most frequent one, and share, how much of the group it is: a row each group 0 … m - 1, none empty."""
    counts = pd.DataFrame({"group": group, "label": np.asarray(labels, dtype=object)}).value_counts().rename("count").reset_index()
    first = counts.sort_values(["group", "count", "label"], ascending=[True, False, True]).drop_duplicates("group")
    return pd.DataFrame({"label": first["label"].to_numpy(), "share": first["count"].to_numpy() / np.bincount(group)})


def kind(labels: Sequence[str], group: Integers) -> pd.DataFrame:
    """Return what is in each group in a word: the deepest folder with more than half of it, else its most frequent top folder.

    Columns label and share, a row each group 0 … m - 1, none empty.
    """
    folders = pd.Series(labels, dtype=object).str.split("/")
    found = majority(folders.str[0].tolist(), group)
    for depth in range(2, int(folders.str.len().max()) + 1):
        deeper = majority(folders.str[:depth].str.join("/").tolist(), group)
        whole = folders.str.len().groupby(group).max().to_numpy() >= depth
        better = whole & (deeper["share"] > 0.5).to_numpy()
        found[better] = deeper[better]
    return found

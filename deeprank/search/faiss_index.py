"""What FAISS and Lance offer to find the nearest without comparing with every image, over the clusters of the catalogue."""

from functools import lru_cache
from typing import Literal, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from deeprank.search.clusters import Clusters, ClusterSettings, kmeans
from deeprank.search.lance_index import LanceIndex
from deeprank.settings import Settings

Kind = Literal["exact", "ivf_flat", "two_level_ivf", "hnsw", "ivf_pq", "lance"]
Vectors = npt.NDArray[np.float32]
Entries = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]
# FAISS's, or Lance's; none to compare with every vector.
Structure: TypeAlias = faiss.Index | LanceIndex | None

# What each kind has to be told.
NEEDED: dict[Kind, tuple[str, ...]] = {
    "exact": (),
    "ivf_flat": ("nprobe",),
    "two_level_ivf": ("nprobe", "coarse_nprobe"),
    "hnsw": ("ef_search",),
    "ivf_pq": ("nprobe", "rerank"),
    "lance": ("nprobe",),
}
# There are so many cells as the root of the number of images, times this.
CELLS = 8
# Clusters whose cells are compared when an image is put into its cell.
FILLING = 16
# Of the graph: links of an image (twice as many on the lowest level), and candidates looked at when one is linked.
LINKS, LINKING = 24, 80
# Of the product quantizer: images that it learns from.
LEARN_FROM = 25_000
# Numbers held at once while candidates are compared.
GATHERED = 2**22


class SearchParams(Settings):
    """An operating point: what is searched, and how thoroughly.

    Attributes:
        kind: exact: every image; ivf_flat: inverted lists whose coarse quantizer is the clusters' centroids; two_level_ivf:
            lists of cells, into which the clusters are divided, the nearest cells being looked for in the nearest clusters
            only; hnsw: a graph of neighbors; ivf_pq: inverted lists of vectors compressed to two bits a dimension, the best of
            which are compared exactly; lance: the clusters' inverted lists in a Lance table, of which only what is looked at is read.
        nprobe: clusters (ivf_flat, ivf_pq, lance) or cells (two_level_ivf) looked into.
        coarse_nprobe: clusters whose cells are compared (two_level_ivf).
        ef_search: candidates kept on the way (hnsw: efSearch).
        rerank: candidates compared exactly for each neighbor wanted (ivf_pq).

    """

    kind: Kind = "exact"
    nprobe: int = Field(0, ge=0)
    coarse_nprobe: int = Field(0, ge=0)
    ef_search: int = Field(0, ge=0)
    rerank: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> "SearchParams":
        missing = [name for name in NEEDED[self.kind] if not getattr(self, name)]
        if missing:
            raise ValueError(f"kind {self.kind} needs {' and '.join(missing)}")
        return self

    def __str__(self) -> str:
        """In words, as logs and tables have it."""
        return ", ".join([self.kind, *(f"{name} {getattr(self, name)}" for name in NEEDED[self.kind])])


EXACT_SEARCH = SearchParams(kind="exact")


def build_structure(kind: Kind, vectors: Vectors, clusters: Clusters, seed: int = 0) -> "faiss.Index":
    """Return a kind's structure, one of FAISS's, over vectors (n, d) of unit length; the same input gives the same bytes."""
    embedding_dim, k = vectors.shape[1], len(clusters.centroids)
    # By squared distance, summed from differences: where vectors are whole, what is found needs no second look.
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(embedding_dim, LINKS)
        graph.hnsw.efConstruction = LINKING
        _link(graph, vectors)
        return graph
    flat = faiss.IndexFlatL2(embedding_dim)
    flat.add(clusters.centroids)
    if kind == "ivf_pq":
        # A codebook has no more entries than there are images to learn it from.
        bits = 8 if len(vectors) >= LEARN_FROM else min(4, len(vectors).bit_length() - 1)
        # Two bits a dimension, in parts of a number of dimensions that divides them all.
        parts = max(part for part in range(1, 2 * embedding_dim // bits + 1) if embedding_dim % part == 0)
        lists = faiss.IndexIVFPQ(flat, embedding_dim, k, parts, bits)
        lists.pq.cp.seed = lists.cp.seed = seed
        lists.train(vectors[np.random.default_rng(seed).permutation(len(vectors))[:LEARN_FROM]])
    elif kind == "two_level_ivf":
        cells = _cells(vectors, clusters, seed)
        quantizer = faiss.IndexIVFFlat(flat, embedding_dim, k)
        quantizer.nprobe = FILLING
        quantizer.add(cells)
        lists = faiss.IndexIVFFlat(quantizer, embedding_dim, len(cells))
    elif kind == "ivf_flat":
        lists = faiss.IndexIVFFlat(flat, embedding_dim, k)
    else:
        raise ValueError(f"FAISS has no structure of kind {kind}")
    lists.add(vectors)
    return lists


def _link(graph: "faiss.IndexHNSWFlat", vectors: Vectors) -> None:
    # On several threads the order of linking, and so the graph, is another one each time.
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        graph.add(vectors)
    finally:
        faiss.omp_set_num_threads(threads)


def _cells(vectors: Vectors, clusters: Clusters, seed: int) -> Vectors:
    """Divide each cluster by k-means into cells of like size; returns the cells' centers (c, d) of unit length."""
    images = max(1.0, len(vectors) ** 0.5 / CELLS)
    order, sizes = np.argsort(clusters.assigned, kind="stable"), np.bincount(clusters.assigned)
    cells = []
    for members in np.split(order, np.cumsum(sizes)[:-1]):
        inside = vectors[np.sort(members)]
        cells.append(kmeans(inside, max(1, round(len(inside) / images)), ClusterSettings(iterations=10, seed=seed))[0])
    return np.concatenate(cells)


def find(
    structure: Structure,
    point: SearchParams,
    vectors: Vectors | LanceIndex,
    queries: Vectors,
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[Entries, Distances]:
    """Return each query's k nearest entries and their Euclidean distances, both (q, k), nearest first; -1 and inf where fewer are found.

    Args:
        structure: of the point's kind; None for exact, which wants the vectors in memory.
        point: how thoroughly.
        vectors: (n, d) of unit length.
        queries: (q, d) of unit length.
        k: neighbors wanted.
        allowed: (n,) which entries may be found; None: all. Of no use to exact.

    """
    if isinstance(structure, LanceIndex):
        return structure.nearest(queries, k, point.nprobe, allowed)
    assert not isinstance(vectors, LanceIndex), "a table is searched by its own lists"
    if structure is None:
        return nearest_of(vectors, queries, exact(vectors, queries, k), k)
    if allowed is None:
        parameters = _parameters(point)
    else:
        parameters = _new_parameters(point, sel=faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")))
    # pytorch-metric-learning imports FAISS's torch wrappers, which put their own search, without parameters, over this one.
    search = getattr(structure, "search_numpy", structure.search)
    squared, entries = search(queries, min(k * point.rerank, structure.ntotal), params=parameters)
    if point.kind == "ivf_pq":
        return nearest_of(vectors, queries, entries, k)
    squared[entries < 0] = np.inf
    return entries, np.sqrt(squared, dtype=np.float64)


def _new_parameters(point: SearchParams, **options: object) -> "faiss.SearchParameters":
    if point.kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=point.ef_search, **options)
    if point.kind == "two_level_ivf":
        return faiss.SearchParametersIVF(
            nprobe=point.nprobe, quantizer_params=faiss.SearchParametersIVF(nprobe=point.coarse_nprobe), **options
        )
    return faiss.SearchParametersIVF(nprobe=point.nprobe, **options)


# Making them takes as long as looking into a list.
_parameters = lru_cache(64)(_new_parameters)


def exact(vectors: Vectors, queries: Vectors, k: int) -> Entries:
    """Return the k nearest entries of each query by comparing with every one of them."""
    _, found = faiss.knn(queries, np.asarray(vectors), min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    entries: Entries = found
    return entries


def remove(structure: "faiss.Index", entries: Entries) -> None:
    """Take entries out of a structure; out of a graph nothing can be taken: there the search has to pass them over."""
    if isinstance(structure, faiss.IndexIVF):
        structure.remove_ids(np.ascontiguousarray(entries))


def add(structure: "faiss.Index", vectors: Vectors, first: int) -> None:
    """Add vectors (m, d) as entries first to first + m - 1."""
    if isinstance(structure, faiss.IndexIVF):
        structure.add_with_ids(vectors, np.arange(first, first + len(vectors)))
    else:
        _link(structure, vectors)


def nearest_of(vectors: Vectors | LanceIndex, queries: Vectors, entries: Entries, k: int) -> tuple[Entries, Distances]:
    """Return the k nearest of each query's candidates and their Euclidean distances, both (q, min(k, c)), nearest first.

    Args:
        vectors: (n, d) of unit length.
        queries: (q, d) of unit length.
        entries: (q, c) candidates, -1 for none.
        k: neighbors wanted.

    """
    squared = np.empty(entries.shape)
    block = max(1, GATHERED // max(1, entries.shape[1] * vectors.shape[1]))
    for i in range(0, len(entries), block):
        # From differences: near 0 the root of 2 - 2 x similarity loses half of the digits.
        apart = vectors[entries[i : i + block]] - queries[i : i + block, None]
        squared[i : i + block] = np.einsum("qcd,qcd->qc", apart, apart)
    squared[entries < 0] = np.inf
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(entries, order, axis=1), np.sqrt(np.take_along_axis(squared, order, axis=1))

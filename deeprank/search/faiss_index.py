"""FAISS structures over the clusters of a catalogue: building, changing and searching them."""

from functools import lru_cache
from typing import TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from deeprank.row_numbers import IndexEntries
from deeprank.search.arrays import Distances, Vectors
from deeprank.search.clusters import Clusters
from deeprank.search.kmeans import kmeans
from deeprank.search.lance_index import LanceIndex
from deeprank.search.search_params import IndexKind, SearchParams

# Of FAISS or Lance; None for exact search, which needs the vectors alone.
Structure: TypeAlias = faiss.Index | LanceIndex | None

# two_level_ivf: cells per square root of the number of images.
CELLS_PER_ROOT = 8
CELL_KMEANS_ITERATIONS = 10
# two_level_ivf: clusters whose cells are compared when an image is assigned to its cell.
ASSIGN_NPROBE = 16
# hnsw: links per image (twice as many on the lowest level), and candidates compared when an image is linked.
M, EF_CONSTRUCTION = 24, 80
# ivf_pq: images that the codebook is trained on.
MAX_PQ_TRAIN_IMAGES = 25_000
# Values of candidate vectors held in memory at once: 16 MiB of float32.
MAX_GATHERED_VALUES = 2**22


def build_structure(kind: IndexKind, vectors: Vectors, clusters: Clusters, seed: int = 0) -> faiss.Index:
    """Build the FAISS structure of a kind; the same input gives the same bytes.

    Args:
        kind: other than exact and lance.
        vectors: (n, d) of unit length.
        clusters: of the vectors.
        seed: of the product quantizer and of the cells.

    """
    embedding_dim, k = vectors.shape[1], len(clusters.centroids)
    # Squared distances of whole vectors are summed from differences: the results need no re-ranking.
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(embedding_dim, M)
        graph.hnsw.efConstruction = EF_CONSTRUCTION
        _add_single_threaded(graph, vectors)
        return graph
    flat = faiss.IndexFlatL2(embedding_dim)
    flat.add(clusters.centroids)
    if kind == "ivf_pq":
        ivf = _trained_ivf_pq(flat, k, vectors, seed)
    elif kind == "two_level_ivf":
        cells = _cell_centroids(vectors, clusters, seed)
        quantizer = faiss.IndexIVFFlat(flat, embedding_dim, k)
        quantizer.nprobe = ASSIGN_NPROBE
        quantizer.add(cells)
        ivf = faiss.IndexIVFFlat(quantizer, embedding_dim, len(cells))
    elif kind == "ivf_flat":
        ivf = faiss.IndexIVFFlat(flat, embedding_dim, k)
    else:
        raise ValueError(f"FAISS has no structure of kind {kind}")
    ivf.add(vectors)
    return ivf


def _trained_ivf_pq(quantizer: faiss.IndexFlatL2, k: int, vectors: Vectors, seed: int) -> faiss.IndexIVFPQ:
    """Return inverted lists without entries, their product quantizer trained on the vectors: two bits per dimension."""
    embedding_dim = vectors.shape[1]
    # A codebook has at most as many codes as there are images to train it on.
    bits = 8 if len(vectors) >= MAX_PQ_TRAIN_IMAGES else min(4, len(vectors).bit_length() - 1)
    # The subquantizers have equally many dimensions each.
    subquantizers = max(m for m in range(1, 2 * embedding_dim // bits + 1) if embedding_dim % m == 0)
    ivf = faiss.IndexIVFPQ(quantizer, embedding_dim, k, subquantizers, bits)
    ivf.pq.cp.seed = ivf.cp.seed = seed
    ivf.train(vectors[np.random.default_rng(seed).permutation(len(vectors))[:MAX_PQ_TRAIN_IMAGES]])
    return ivf


def _cell_centroids(vectors: Vectors, clusters: Clusters, seed: int) -> Vectors:
    """Divide each cluster by k-means into cells of similar size, and return the centroids of all cells (c, d)."""
    images_per_cell = max(1.0, len(vectors) ** 0.5 / CELLS_PER_ROOT)
    order, sizes = np.argsort(clusters.assignments, kind="stable"), np.bincount(clusters.assignments)
    cells = []
    for members in np.split(order, np.cumsum(sizes)[:-1]):
        inside = vectors[np.sort(members)]
        num_cells = max(1, round(len(inside) / images_per_cell))
        cells.append(kmeans(inside, num_cells, iterations=CELL_KMEANS_ITERATIONS, seed=seed)[0])
    return np.concatenate(cells)


def _add_single_threaded(graph: faiss.IndexHNSWFlat, vectors: Vectors) -> None:
    # With several threads the order of insertion differs between runs, and so does the graph.
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        graph.add(vectors)
    finally:
        faiss.omp_set_num_threads(threads)


def add_entries(structure: faiss.Index, vectors: Vectors, first: int) -> None:
    """Add vectors (m, d) to a structure as the entries `first` to `first` + m - 1."""
    if isinstance(structure, faiss.IndexIVF):
        structure.add_with_ids(vectors, np.arange(first, first + len(vectors)))
    else:
        _add_single_threaded(structure, vectors)


def remove_entries(structure: faiss.Index, entries: IndexEntries) -> None:
    """Remove entries from inverted lists. A graph keeps them: a search in it has to exclude them by `allowed`."""
    if isinstance(structure, faiss.IndexIVF):
        structure.remove_ids(np.ascontiguousarray(entries))


def search_structure(
    structure: Structure,
    search_params: SearchParams,
    vectors: Vectors | LanceIndex,
    queries: Vectors,
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[IndexEntries, Distances]:
    """Search a structure.

    Args:
        structure: of the kind of `search_params`; None for exact search, which needs the vectors in memory.
        search_params: kind and parameters.
        vectors: (n, d) of unit length.
        queries: (q, d) of unit length.
        k: neighbors per query.
        allowed: (n,) the entries that may be returned; None: all. Exact search ignores it.

    Returns:
        The nearest entries of each query and their Euclidean distances, both (q, k), nearest first; -1 and infinity where there
        are fewer neighbors.

    """
    if isinstance(structure, LanceIndex):
        return structure.search(queries, k, search_params.nprobe, allowed)
    assert not isinstance(vectors, LanceIndex), "a Lance table is searched by its own lists"
    if structure is None:
        return rerank_candidates(vectors, queries, exact_neighbors(vectors, queries, k), k)
    if allowed is None:
        faiss_params = _cached_faiss_params(search_params)
    else:
        faiss_params = _faiss_params(search_params, sel=faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")))
    # pytorch-metric-learning imports FAISS's torch wrappers, which replace `search` by one without the argument `params`.
    search = getattr(structure, "search_numpy", structure.search)
    squared, entries = search(queries, min(k * search_params.rerank, structure.ntotal), params=faiss_params)
    if search_params.kind == "ivf_pq":
        return rerank_candidates(vectors, queries, entries, k)
    squared[entries < 0] = np.inf
    return entries, np.sqrt(squared, dtype=np.float64)


def _faiss_params(search_params: SearchParams, **options: object) -> faiss.SearchParameters:
    if search_params.kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=search_params.ef_search, **options)
    if search_params.kind == "two_level_ivf":
        quantizer_params = faiss.SearchParametersIVF(nprobe=search_params.coarse_nprobe)
        return faiss.SearchParametersIVF(nprobe=search_params.nprobe, quantizer_params=quantizer_params, **options)
    return faiss.SearchParametersIVF(nprobe=search_params.nprobe, **options)


# Creating the parameters takes as long as visiting a list.
_cached_faiss_params = lru_cache(64)(_faiss_params)


def exact_neighbors(vectors: Vectors, queries: Vectors, k: int) -> IndexEntries:
    """Return the nearest entries of each query (q, min(k, n)), nearest first, by comparing it with every vector."""
    _, entries = faiss.knn(queries, np.asarray(vectors), min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    return IndexEntries(entries)


def rerank_candidates(vectors: Vectors | LanceIndex, queries: Vectors, candidates: IndexEntries, k: int) -> tuple[IndexEntries, Distances]:
    """Compare each query exactly with its candidates, and return the nearest of them.

    Args:
        vectors: (n, d) of unit length.
        queries: (q, d) of unit length.
        candidates: (q, c) entries, -1 for none.
        k: neighbors per query.

    Returns:
        Entries and Euclidean distances, both (q, min(k, c)), nearest first.

    """
    squared = np.empty(candidates.shape)
    block = max(1, MAX_GATHERED_VALUES // max(1, candidates.shape[1] * vectors.shape[1]))
    for i in range(0, len(candidates), block):
        # From differences: near 0 the root of 2 - 2 x similarity loses half of the digits.
        differences = vectors[candidates[i : i + block]] - queries[i : i + block, None]
        squared[i : i + block] = np.einsum("qcd,qcd->qc", differences, differences)
    squared[candidates < 0] = np.inf
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    entries = IndexEntries(np.take_along_axis(candidates, order, axis=1))
    return entries, np.sqrt(np.take_along_axis(squared, order, axis=1))

"""Measuring search parameters: recall@10 against exact search, latency and throughput."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import faiss
import numpy as np

from deeprank.row_numbers import IndexEntries
from deeprank.search.arrays import Distances, Vectors
from deeprank.search.clusters import Clusters
from deeprank.search.faiss_index import Structure, search_structure
from deeprank.search.lance_index import LanceIndex
from deeprank.search.search_params import EXACT_SEARCH, IndexKind, SearchParams

NEIGHBORS = 10
MAX_RECALL_QUERIES, MAX_TIMED_QUERIES, BATCH_SIZE, TIMED_BATCHES = 1000, 100, 64, 5
# Standard errors below the mean of the one-sided 95 % confidence bound.
Z_ONE_SIDED_95 = 1.645
MAX_EF_SEARCH = 1024
RERANK_FACTORS = (4, 16)
# two_level_ivf: the visited clusters hold about this many times as many cells as are visited.
COARSE_CELL_FACTOR = 8


class SearchBenchmark:
    """Queries with their true neighbors, to measure search parameters with.

    Args:
        vectors: (n, d) of unit length.
        seed: of the choice of the images that are queries.
        query_forms: functions that turn the vectors of these images into queries, see `Embedder.query_forms`; the recall is that of
            the form with the lowest.

    """

    def __init__(self, vectors: Vectors, seed: int, query_forms: Sequence[Callable[[Vectors], Vectors]] = (np.asarray,)) -> None:
        self.vectors = vectors
        entries = np.random.default_rng(seed).permutation(len(vectors))[:MAX_RECALL_QUERIES]
        self._num_forms, self._query_entries = len(query_forms), np.tile(entries, len(query_forms))
        self._queries = np.concatenate([form(vectors[entries]) for form in query_forms])
        self._k = min(NEIGHBORS, len(vectors) - 1)
        distances = self._without_queries(*self._search(EXACT_SEARCH, None, self._queries))
        # A neighbor is correct by its distance, not by its entry: of two images at the same distance either counts.
        self._max_distances = distances[:, -1] + 1e-6

    def measure(self, search_params: SearchParams, structure: Structure, build_seconds: float) -> dict[str, Any]:
        """Return a row of `AutotuneResult.measurements`, without pareto_optimal."""
        distances = self._without_queries(*self._search(search_params, structure, self._queries))
        num_timed = min(MAX_TIMED_QUERIES, len(self._queries) // self._num_forms)
        single_seconds = [_seconds(self._search, search_params, structure, self._queries[i : i + 1]) for i in range(num_timed)]
        batch = self._queries[:BATCH_SIZE]
        batch_seconds = min(_seconds(self._search, search_params, structure, batch) for _ in range(TIMED_BATCHES))
        recalls_by_form = (distances <= self._max_distances[:, None]).mean(axis=1).reshape(self._num_forms, -1)
        recalls = recalls_by_form[recalls_by_form.mean(axis=1).argmin()]
        return {
            "search_params": search_params,
            "kind": search_params.kind,
            "recall_at_10": float(recalls.mean()),
            "recall_at_10_low": float(recalls.mean() - Z_ONE_SIDED_95 * recalls.std() / len(recalls) ** 0.5),
            "latency_ms": float(np.median(single_seconds)) * 1000,
            "queries_per_second": len(batch) / batch_seconds,
            "structure_mib": self._num_bytes(structure) / 2**20,
            "build_seconds": build_seconds,
        }

    def _search(self, search_params: SearchParams, structure: Structure, queries: Vectors) -> tuple[IndexEntries, Distances]:
        return search_structure(structure, search_params, self.vectors, queries, self._k + 1)

    def _without_queries(self, entries: IndexEntries, distances: Distances) -> Distances:
        """Return the distances (q, k) of the k + 1 neighbors of each query without the query image itself."""
        is_query = entries == self._query_entries[:, None]
        # Where the query image was not found, the last neighbor is dropped.
        is_query[~is_query.any(axis=1), -1] = True
        return distances[~is_query].reshape(len(entries), -1)

    def _num_bytes(self, structure: Structure) -> int:
        """Return the size of a structure in memory; 0 for Lance, which keeps nothing there."""
        if isinstance(structure, LanceIndex):
            return 0
        return self.vectors.nbytes if structure is None else len(faiss.serialize_index(structure))


def _seconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def _geometric_steps(last: int) -> list[int]:
    """Return 1, 2, 3, 4, 6, 8, 11, … up to `last`."""
    return sorted({*(round(2 ** (i / 2)) for i in range(2 * last.bit_length()) if round(2 ** (i / 2)) < last), last})


def param_sweeps(kind: IndexKind, clusters: Clusters, structure: faiss.Index) -> Iterator[list[SearchParams]]:
    """Yield series of search parameters of a kind, each of increasing recall."""
    k = len(clusters.centroids)
    if kind == "hnsw":
        yield [SearchParams(kind=kind, ef_search=ef_search) for ef_search in _geometric_steps(MAX_EF_SEARCH) if ef_search > NEIGHBORS]
    elif kind == "two_level_ivf":
        cells = structure.nlist
        yield [
            SearchParams(kind=kind, nprobe=nprobe, coarse_nprobe=min(k, -(-COARSE_CELL_FACTOR * nprobe * k // cells)))
            for nprobe in _geometric_steps(cells)
        ]
    elif kind == "ivf_pq":
        for rerank in RERANK_FACTORS:
            yield [SearchParams(kind=kind, nprobe=nprobe, rerank=rerank) for nprobe in _geometric_steps(k)]
    else:
        yield [SearchParams(kind=kind, nprobe=nprobe) for nprobe in _geometric_steps(k)]

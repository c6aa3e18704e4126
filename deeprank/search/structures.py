"""What FAISS offers to find the nearest without comparing with every photograph, over the clusters of the catalogue."""

from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from deeprank.search.cluster import Clusters
from deeprank.settings import Settings

Kind = Literal["exact", "clusters", "two-level", "hnsw", "pq"]
Vectors = npt.NDArray[np.float32]
Entries = npt.NDArray[np.int64]

# What each kind has to be told.
NEEDED: dict[Kind, tuple[str, ...]] = {
    "exact": (),
    "clusters": ("probes",),
    "two-level": ("probes", "sections"),
    "hnsw": ("breadth",),
    "pq": ("probes", "rerank"),
}
# Of the graph: links of a photograph (twice as many on the lowest level), and candidates looked at when one is linked.
LINKS, LINKING = 24, 80
# Of the product quantizer: photographs that it learns from.
LEARN_FROM = 50_000
# Numbers held at once while candidates are compared.
GATHERED = 2**22


class Point(Settings):
    """An operating point: what is searched, and how thoroughly.

    Attributes:
        kind: exact: every photograph; clusters: inverted lists whose coarse quantizer is the clusters' centroids; two-level:
            the same, the nearest centroids being looked for in the nearest sections only; hnsw: a graph of neighbours; pq:
            inverted lists of vectors compressed to two bits a dimension, the best of which are compared exactly.
        probes: clusters looked into (clusters, two-level, pq).
        sections: sections looked into (two-level).
        breadth: candidates kept on the way (hnsw: efSearch).
        rerank: candidates compared exactly for each neighbour wanted (pq).

    """

    kind: Kind = "exact"
    probes: int = Field(0, ge=0)
    sections: int = Field(0, ge=0)
    breadth: int = Field(0, ge=0)
    rerank: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> "Point":
        missing = [name for name in NEEDED[self.kind] if not getattr(self, name)]
        if missing:
            raise ValueError(f"kind {self.kind} needs {' and '.join(missing)}")
        return self

    def __str__(self) -> str:
        """In words, as logs and tables have it."""
        return ", ".join([self.kind, *(f"{name} {getattr(self, name)}" for name in NEEDED[self.kind])])


def build_structure(kind: Kind, vectors: Vectors, clusters: Clusters, seed: int = 0) -> "faiss.Index":
    """Return FAISS's structure of a kind other than exact over vectors (n, d) of unit length; the same input gives the same bytes."""
    dimensions, k = vectors.shape[1], len(clusters.centroids)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dimensions, LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = LINKING
        # On several threads the order of linking, and so the graph, is another one each time.
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            graph.add(vectors)
        finally:
            faiss.omp_set_num_threads(threads)
        return graph
    quantizer: faiss.Index = faiss.IndexFlatIP(dimensions)
    if kind == "two-level":
        sections = faiss.IndexFlatIP(dimensions)
        sections.add(clusters.section_centroids)
        quantizer = faiss.IndexIVFFlat(sections, dimensions, len(clusters.section_centroids), faiss.METRIC_INNER_PRODUCT)
        # Exact while the lists are filled: each photograph goes to the cluster that it belongs to.
        quantizer.nprobe = len(clusters.section_centroids)
    quantizer.add(clusters.centroids)
    if kind == "pq":
        lists = faiss.IndexIVFPQFastScan(
            quantizer, dimensions, k, dimensions // 2 if dimensions % 2 == 0 else dimensions, 4, faiss.METRIC_INNER_PRODUCT
        )
        lists.pq.cp.seed = seed
        lists.train(vectors[np.random.default_rng(seed).permutation(len(vectors))[:LEARN_FROM]])
    else:
        lists = faiss.IndexIVFFlat(quantizer, dimensions, k, faiss.METRIC_INNER_PRODUCT)
    lists.add(vectors)
    return lists


def candidates(structure: "faiss.Index", point: Point, queries: Vectors, k: int, allowed: npt.NDArray[np.bool_] | None = None) -> Entries:
    """Return (len(queries), k x rerank) entries, -1 where fewer were found.

    Args:
        structure: of the point's kind.
        point: how thoroughly.
        queries: (q, d) of unit length.
        k: neighbours wanted.
        allowed: (n,) which entries may be found; None: all.

    """
    options = {}
    if allowed is not None:
        options["sel"] = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if point.kind == "hnsw":
        parameters = faiss.SearchParametersHNSW(efSearch=max(point.breadth, k), **options)
    elif point.kind == "two-level":
        inner = faiss.SearchParametersIVF(nprobe=point.sections)
        parameters = faiss.SearchParametersIVF(nprobe=point.probes, quantizer_params=inner, **options)
    else:
        parameters = faiss.SearchParametersIVF(nprobe=point.probes, **options)
    # pytorch-metric-learning imports FAISS's torch wrappers, which put their own search, without parameters, over this one.
    search = getattr(structure, "search_numpy", structure.search)
    _, found = search(queries, min(k * point.rerank, structure.ntotal), params=parameters)
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
        structure.add(vectors)


def nearest_of(vectors: Vectors, queries: Vectors, entries: Entries, k: int) -> tuple[Entries, npt.NDArray[np.float64]]:
    """Return the k nearest of each query's candidates and their Euclidean distances, both (q, min(k, c)), nearest first.

    Args:
        vectors: (n, d) of unit length.
        queries: (q, d) of unit length.
        entries: (q, c) candidates, -1 for none.
        k: neighbours wanted.

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

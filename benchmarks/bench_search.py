"""Searching a million vectors distributed like ours: our choice against FAISS set manually, hnswlib, usearch and Lance.

The vectors: the images (grocery, else synthetic ones) embedded by the default model without training, or by --model, reduced to
128 dimensions by principal components. Each of the million vectors is a random point between the vector of an image and that of one
of its ten nearest images, plus noise of half their distance. Queries are made in the same way and are not among the vectors.

Every contender is measured with several settings. Its row is the fastest setting with recall@10 of at least 0.99, once for single
queries, once for batches of 64. `build` is how long its user waits; ours includes clustering and measuring all search parameters.
"""

import argparse
import gc
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import hnswlib
import lance
import numpy as np
import pyarrow as pa
from peers import Spec, page, prepare, screen
from rich.table import Table
from usearch.index import Index as Usearch

from deeprank.data.catalogue import Catalogue
from deeprank.models.embedding_model import ModelSettings, create_model
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.registry.releases import open_release
from deeprank.reporting import Record
from deeprank.search.autotune import IndexSettings, autotune
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.faiss_index import exact_neighbors, search_structure
from deeprank.search.lance_index import LanceIndex

EMBEDDING_DIM, K, MIN_RECALL, BATCH_SIZE, NUM_QUERIES = 128, 10, 0.99, 64, 2000
# Of FAISS, hnswlib and usearch alike.
M, EF_CONSTRUCTION = 24, 80
# A name, and a function from queries (q, d) to their nearest entries (q, 10).
Setting = tuple[str, Callable[[np.ndarray], np.ndarray]]
# Seconds to build, MiB, settings to measure.
Built = tuple[float, float, list[Setting]]


def image_embeddings(model: str | None) -> np.ndarray:
    """Return the embeddings of the images (m, 128), of unit length."""
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder)
        catalogue = Catalogue(data["uri"], data["version"])
        embedder, preprocessing = open_release(model).bundle.load() if model else (create_model(ModelSettings()), Preprocessing())
        embeddings = embed_catalogue(embedder.eval(), preprocessing, catalogue, np.arange(len(catalogue.frame)), "embedding")
    centered = embeddings - embeddings.mean(0)
    reduced = centered @ np.linalg.svd(centered, full_matrices=False)[2][:EMBEDDING_DIM].T
    return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


def interpolate(embeddings: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return (count, 128) vectors of unit length between embeddings and their nearest embeddings, plus noise."""
    rng = np.random.default_rng(seed)
    neighbors = exact_neighbors(embeddings, embeddings, 11)[:, 1:]
    base = rng.integers(len(embeddings), size=count)
    other = neighbors[base, rng.integers(10, size=count)]
    difference = embeddings[other] - embeddings[base]
    vectors = rng.standard_normal((count, embeddings.shape[1]), dtype=np.float32)
    vectors *= 0.5 * np.linalg.norm(difference, axis=1, keepdims=True) / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors += embeddings[base] + rng.random((count, 1), dtype=np.float32) * difference
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def build_ours(vectors: np.ndarray) -> Built:
    """Cluster, measure all search parameters, take the chosen ones."""
    start = time.perf_counter()
    clusters = cluster_embeddings(vectors, ClusterSettings())
    with tempfile.TemporaryDirectory() as folder:
        result = autotune(vectors, clusters, IndexSettings(min_recall=MIN_RECALL), Record(Path(folder)))
    seconds = time.perf_counter() - start
    screen.print(result.measurements.to_string(index=False))

    def search(queries: np.ndarray) -> np.ndarray:
        return search_structure(result.structure, result.search_params, vectors, queries, K)[0]

    num_bytes = len(faiss.serialize_index(result.structure)) if result.structure is not None else 0
    return seconds, (num_bytes + vectors.nbytes) / 2**20, [(f"{result.search_params} of {len(clusters.centroids)} clusters", search)]


def build_ours_in_lance(vectors: np.ndarray) -> Built:
    """Cluster, put the vectors into the lists of the clusters in a Lance table, take the chosen search parameters."""
    folder = tempfile.TemporaryDirectory()
    uri, ids = f"{folder.name}/v.lance", [f"{i:08x}" for i in range(len(vectors))]
    lance.write_dataset(pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])}), uri)
    start = time.perf_counter()
    clusters = cluster_embeddings(vectors, ClusterSettings())
    lance_index = LanceIndex.build(uri, ids, clusters.centroids)
    with tempfile.TemporaryDirectory() as record_folder:
        settings = IndexSettings(backend="lance", min_recall=MIN_RECALL)
        result = autotune(vectors, clusters, settings, Record(Path(record_folder)), lance_index)
    seconds = time.perf_counter() - start
    screen.print(result.measurements.to_string(index=False))

    # The default argument keeps the folder until the last use of this function.
    def search(queries: np.ndarray, _folder: object = folder) -> np.ndarray:
        return search_structure(lance_index, result.search_params, lance_index, queries, K)[0]

    return seconds, _mib(Path(folder.name)), [(f"{result.search_params} of {len(clusters.centroids)} clusters, on disk", search)]


def _mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def faiss_builder(factory: str, grid: dict[str, list[float]]) -> Callable[[np.ndarray], Built]:
    """Return a contender: an index of FAISS's factory, measured with all combinations of some parameters."""

    def build(vectors: np.ndarray) -> Built:
        start = time.perf_counter()
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:: max(1, len(vectors) // 200_000)])
        index.add(vectors)
        seconds = time.perf_counter() - start
        space = faiss.ParameterSpace()

        def search_with(params: Spec) -> Callable[[np.ndarray], np.ndarray]:
            def search(queries: np.ndarray) -> np.ndarray:
                for name, value in params.items():
                    space.set_index_parameter(index, name, value)
                return index.search(queries, K)[1]

            return search

        combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        names = [" ".join([factory, *(f"{name}={value:g}" for name, value in params.items())]) for params in combinations]
        return seconds, len(faiss.serialize_index(index)) / 2**20, list(zip(names, map(search_with, combinations), strict=True))

    return build


def build_hnswlib(vectors: np.ndarray) -> Built:
    """Build the graph of hnswlib."""
    start = time.perf_counter()
    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=EF_CONSTRUCTION, M=M)
    index.add_items(vectors)
    seconds = time.perf_counter() - start

    def search_with(ef_search: int) -> Callable[[np.ndarray], np.ndarray]:
        def search(queries: np.ndarray) -> np.ndarray:
            index.set_ef(ef_search)
            return index.knn_query(queries, K)[0].astype(np.int64)

        return search

    return seconds, index.index_file_size() / 2**20, [(f"M={M} ef={ef_search}", search_with(ef_search)) for ef_search in EF_SEARCH_VALUES]


def build_usearch(vectors: np.ndarray) -> Built:
    """Build the graph of usearch."""
    start = time.perf_counter()
    index = Usearch(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION)
    index.add(np.arange(len(vectors)), vectors)
    seconds = time.perf_counter() - start

    def search_with(ef_search: int) -> Callable[[np.ndarray], np.ndarray]:
        def search(queries: np.ndarray) -> np.ndarray:
            index.expansion_search = ef_search
            return np.asarray(index.search(queries, K).keys).astype(np.int64).reshape(len(queries), K)

        return search

    settings = [(f"connectivity={M} expansion={ef_search}", search_with(ef_search)) for ef_search in EF_SEARCH_VALUES]
    return seconds, index.memory_usage / 2**20, settings


def build_lance_ivf_pq(vectors: np.ndarray) -> Built:
    """Build inverted lists of product-quantized vectors in a Lance table on disk."""
    folder = tempfile.TemporaryDirectory()
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.table({"entry": pa.array(np.arange(len(vectors))), "vector": column})
    start = time.perf_counter()
    dataset = lance.write_dataset(table, f"{folder.name}/v.lance")
    dataset.create_index("vector", "IVF_PQ", metric="l2", num_partitions=1024, num_sub_vectors=32)
    dataset = lance.dataset(dataset.uri)
    seconds = time.perf_counter() - start

    def search_with(nprobe: int, refine: int) -> Callable[[np.ndarray], np.ndarray]:
        def search_one(query: np.ndarray) -> np.ndarray:
            nearest = {"column": "vector", "q": query, "k": K, "nprobes": nprobe, "refine_factor": refine}
            return dataset.to_table(columns=["entry", "_distance"], nearest=nearest)["entry"].to_numpy()

        # The default argument keeps the folder until the last use of these functions.
        return lambda queries, _folder=folder: np.stack([search_one(query) for query in queries])

    grid = [(nprobe, refine) for nprobe in (8, 16, 32, 64, 128) for refine in (4, 16)]
    settings = [(f"IVF_PQ nprobes={nprobe} refine={refine}, on disk", search_with(nprobe, refine)) for nprobe, refine in grid]
    return seconds, _mib(Path(folder.name)), settings


EF_SEARCH_VALUES = [16, 24, 32, 48, 64, 96, 128, 192, 256, 512]
NPROBE_VALUES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
CONTENDERS: dict[str, Callable[[np.ndarray], Built]] = {
    "FAISS flat": faiss_builder("Flat", {}),
    "ours": build_ours,
    "ours, backend lance": build_ours_in_lance,
    "FAISS IVF": faiss_builder("IVF4096,Flat", {"nprobe": NPROBE_VALUES}),
    "FAISS IVF, more lists": faiss_builder("IVF8192,Flat", {"nprobe": NPROBE_VALUES}),
    "FAISS IVF, HNSW quantizer": faiss_builder("IVF16384_HNSW32,Flat", {"nprobe": NPROBE_VALUES}),
    "FAISS IVF-PQ, re-ranked": faiss_builder(
        f"IVF4096,PQ{EMBEDDING_DIM // 2}x4fs,RFlat", {"k_factor_rf": [4, 16], "nprobe": NPROBE_VALUES}
    ),
    "FAISS HNSW": faiss_builder(f"HNSW{M},Flat", {"efSearch": EF_SEARCH_VALUES}),
    "hnswlib": build_hnswlib,
    "usearch": build_usearch,
    "Lance": build_lance_ivf_pq,
}
# Slow ones are timed with fewer queries.
SLOW_CONTENDERS = ("FAISS flat", "Lance", "ours, backend lance")


def measure(name: str, vectors: np.ndarray, queries: np.ndarray, min_similarity: np.ndarray) -> Spec:
    """Build a contender and measure its settings; returns all of them and the fastest with sufficient recall."""
    screen.print(name)
    build_seconds, mib, settings = CONTENDERS[name](vectors)
    measured = []
    for setting, search in settings:
        entries = search(queries)
        similarity = np.einsum("qkd,qd->qk", vectors[entries.clip(0)], queries)
        recall = float(((similarity >= min_similarity[:, None] - 1e-6) & (entries >= 0)).mean())
        if recall < 0.9 and not name.startswith("ours"):
            continue
        timed = queries[: 200 if name in SLOW_CONTENDERS else 1000]
        batches = [timed[i : i + BATCH_SIZE] for i in range(0, len(timed) - BATCH_SIZE + 1, BATCH_SIZE)]
        single_per_second = 1 / median_seconds(search, [timed[i : i + 1] for i in range(len(timed))])
        batch_per_second = BATCH_SIZE / median_seconds(search, batches)
        measured.append({"setting": setting, "recall": recall, "single": single_per_second, "batch": batch_per_second})
        screen.print(f"  {setting}: {recall:.4f}, {single_per_second:.0f}/s, {batch_per_second:.0f}/s")
    sufficient = [row for row in measured if row["recall"] >= MIN_RECALL]
    best = {way: max(sufficient, key=lambda row: row[way]) if sufficient else None for way in ("single", "batch")}
    gc.collect()
    return {"contender": name, "build_seconds": build_seconds, "mib": mib, "measured": measured} | best


def median_seconds(search: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray]) -> float:
    """Return the median time of a batch."""
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        search(batch)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def results_table(title: str, results: list[Spec]) -> Table:
    """Return the table of the fastest settings, with their speed relative to exact search by FAISS."""
    flat = next((row for row in results if row["contender"] == "FAISS flat"), results[0])
    table = Table("contender", "single, /s", "of flat", "in 64s, /s", "of flat", "recall", "build, s", "MiB", "setting", title=title)
    for row in results:
        speeds = []
        for way in ("single", "batch"):
            speeds += [f"{row[way][way]:,.0f}", f"{row[way][way] / flat[way][way]:.1f}"] if row[way] else ["not reached", ""]
        none = {"recall": float("nan"), "setting": "below 0.9"}
        best = row["single"] or max(row["measured"], key=lambda measured: measured["recall"], default=none)
        build = [f"{row['build_seconds']:.0f}", f"{row['mib']:,.0f}"]
        table.add_row(row["contender"], *speeds, f"{best['recall']:.4f}", *build, best["setting"])
    return table


def main() -> None:
    """Make vectors, measure every contender, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000, help="vectors (default: %(default)s)")
    parser.add_argument("--model", help="embed with a bundle or models:/deeprank@champion (default: the model without training)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="default: all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    embeddings = image_embeddings(options.model)
    vectors, queries = interpolate(embeddings, options.size, 0), interpolate(embeddings, NUM_QUERIES, 1)
    truth = exact_neighbors(vectors, queries, K)
    min_similarity = np.einsum("qkd,qd->qk", vectors[truth], queries).min(1)
    results = [measure(name, vectors, queries, min_similarity) for name in options.contenders]
    if options.json:
        print(json.dumps({"size": options.size, "images": len(embeddings), "results": results}))
    else:
        title = f"{options.size:,} x {EMBEDDING_DIM}, {len(embeddings):,} images: fastest setting with recall@10 of at least {MIN_RECALL}"
        page.print(results_table(title, results))


if __name__ == "__main__":
    main()

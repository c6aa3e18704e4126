"""Searching a million vectors that look like ours: our choice against FAISS set by hand, hnswlib, usearch, and Lance.

The vectors: the images (grocery, else synthetic ones) embedded by the default embedder before training, or by --model, reduced to
128 dimensions by principal components; each of the million lies at a random place between an image and one of its ten
nearest, and off by noise of half their distance. Queries are made in the same way and are not among them.

Every contender is measured at several settings; its row is the fastest setting with recall@10 of 0.99 or more, once for queries
one by one, once for batches of 64. `build` is what its user waits for; ours includes clustering, and trying all its ways.
"""

import argparse
import gc
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
from deeprank.search.autotune import IndexSettings, choose
from deeprank.search.clusters import ClusterSettings, cluster
from deeprank.search.faiss_index import exact, find
from deeprank.search.lance_index import LanceIndex

DIMENSIONS, K, WANTED, TOGETHER = 128, 10, 0.99, 64
ASKED = 2000
# A setting is a name and a function from queries (q, d) to the entries (q, 10) found.
Setting = tuple[str, Callable[[np.ndarray], np.ndarray]]
# Seconds that building took, MiB, settings to try.
Built = tuple[float, float, list[Setting]]


def images(model: str | None) -> np.ndarray:
    """Return the real embeddings (m, 128), of unit length."""
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder)
        catalogue = Catalogue(data["uri"], data["version"])
        embedder, preprocessing = open_release(model).bundle.load() if model else (create_model(ModelSettings()), Preprocessing())
        found = embed_catalogue(embedder.eval(), preprocessing, catalogue, np.arange(len(catalogue.frame)), "embedding")
    centered = found - found.mean(0)
    reduced = centered @ np.linalg.svd(centered, full_matrices=False)[2][:DIMENSIONS].T
    return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


def grown(real: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return (count, 128) vectors of unit length that lie among the real ones as they lie among each other."""
    rng = np.random.default_rng(seed)
    near = exact(real, real, 11)[:, 1:]
    base = rng.integers(len(real), size=count)
    other = near[base, rng.integers(10, size=count)]
    apart = real[other] - real[base]
    noise = rng.standard_normal((count, real.shape[1]), dtype=np.float32)
    noise *= 0.5 * np.linalg.norm(apart, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    noise += real[base] + rng.random((count, 1), dtype=np.float32) * apart
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return np.ascontiguousarray(noise, dtype=np.float32)


def ours(vectors: np.ndarray) -> Built:
    """Cluster, try every way, take the point chosen."""
    start = time.perf_counter()
    clusters = cluster(vectors, ClusterSettings())
    with tempfile.TemporaryDirectory() as folder:
        record = Record(Path(folder))
        choice = choose(vectors, clusters, IndexSettings(recall=WANTED), record)
    seconds = time.perf_counter() - start
    screen.print(choice.table.to_string(index=False))

    def search(queries: np.ndarray) -> np.ndarray:
        return find(choice.structure, choice.point, vectors, queries, K)[0]

    size = len(faiss.serialize_index(choice.structure)) if choice.structure is not None else 0
    return seconds, (size + vectors.nbytes) / 2**20, [(f"{choice.point} of {len(clusters.centroids)} clusters", search)]


def ours_in_lance(vectors: np.ndarray) -> Built:
    """Cluster, put the vectors into the clusters' lists in a Lance table, take the point chosen."""
    folder = tempfile.TemporaryDirectory()
    uri, ids = f"{folder.name}/v.lance", [f"{i:08x}" for i in range(len(vectors))]
    lance.write_dataset(pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])}), uri)
    start = time.perf_counter()
    clusters = cluster(vectors, ClusterSettings())
    table = LanceIndex.build(uri, ids, clusters.centroids)
    with tempfile.TemporaryDirectory() as scratch:
        choice = choose(vectors, clusters, IndexSettings(backend="lance", recall=WANTED), Record(Path(scratch)), table)
    seconds = time.perf_counter() - start
    screen.print(choice.table.to_string(index=False))

    # The folder goes with the last use of this function.
    def search(queries: np.ndarray, _folder: object = folder) -> np.ndarray:
        return find(table, choice.point, table, queries, K)[0]

    size = sum(file.stat().st_size for file in Path(folder.name).rglob("*") if file.is_file()) / 2**20
    return seconds, size, [(f"{choice.point} of {len(clusters.centroids)} clusters, on disk", search)]


def by_hand(factory: str, ladder: dict[str, list[float]]) -> Callable[[np.ndarray], Built]:
    """Return a contender: an index of FAISS's factory, its parameters set by hand to each of several values."""

    def build(vectors: np.ndarray) -> Built:
        start = time.perf_counter()
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:: max(1, len(vectors) // 200_000)])
        index.add(vectors)
        seconds = time.perf_counter() - start
        space = faiss.ParameterSpace()

        def at(values: Spec) -> Callable[[np.ndarray], np.ndarray]:
            def find(queries: np.ndarray) -> np.ndarray:
                for name, value in values.items():
                    space.set_index_parameter(index, name, value)
                return index.search(queries, K)[1]

            return find

        grids = [{}]
        for name, values in ladder.items():
            grids = [grid | {name: value} for grid in grids for value in values]
        size = len(faiss.serialize_index(index)) / 2**20
        return seconds, size, [(" ".join([factory, *(f"{name}={value:g}" for name, value in grid.items())]), at(grid)) for grid in grids]

    return build


def with_hnswlib(vectors: np.ndarray) -> Built:
    """Build hnswlib's graph."""
    start = time.perf_counter()
    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=80, M=24)
    index.add_items(vectors)
    seconds = time.perf_counter() - start

    def at(ef_search: int) -> Callable[[np.ndarray], np.ndarray]:
        def find(queries: np.ndarray) -> np.ndarray:
            index.set_ef(ef_search)
            return index.knn_query(queries, K)[0].astype(np.int64)

        return find

    return seconds, index.index_file_size() / 2**20, [(f"M=24 ef={ef_search}", at(ef_search)) for ef_search in BREADTHS]


def with_usearch(vectors: np.ndarray) -> Built:
    """Build usearch's graph."""
    start = time.perf_counter()
    index = Usearch(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=24, expansion_add=80)
    index.add(np.arange(len(vectors)), vectors)
    seconds = time.perf_counter() - start

    def at(ef_search: int) -> Callable[[np.ndarray], np.ndarray]:
        def find(queries: np.ndarray) -> np.ndarray:
            index.expansion_search = ef_search
            return np.asarray(index.search(queries, K).keys).astype(np.int64).reshape(len(queries), K)

        return find

    return seconds, index.memory_usage / 2**20, [(f"connectivity=24 expansion={ef_search}", at(ef_search)) for ef_search in BREADTHS]


def with_lance(vectors: np.ndarray) -> Built:
    """Build Lance's inverted lists of product-quantized vectors on a table of them on disk."""
    folder = tempfile.TemporaryDirectory()
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.table({"entry": pa.array(np.arange(len(vectors))), "vector": column})
    start = time.perf_counter()
    dataset = lance.write_dataset(table, f"{folder.name}/v.lance")
    dataset.create_index("vector", "IVF_PQ", metric="l2", num_partitions=1024, num_sub_vectors=32)
    dataset = lance.dataset(dataset.uri)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in Path(folder.name).rglob("*") if file.is_file()) / 2**20

    def at(nprobe: int, refine: int) -> Callable[[np.ndarray], np.ndarray]:
        def one(query: np.ndarray) -> np.ndarray:
            nearest = {"column": "vector", "q": query, "k": K, "nprobes": nprobe, "refine_factor": refine}
            return dataset.to_table(columns=["entry", "_distance"], nearest=nearest)["entry"].to_numpy()

        # The folder goes with the last of these functions.
        return lambda queries, _folder=folder: np.stack([one(query) for query in queries])

    grid = [(nprobe, refine) for nprobe in (8, 16, 32, 64, 128) for refine in (4, 16)]
    return seconds, size, [(f"IVF_PQ nprobes={nprobe} refine={refine}, on disk", at(nprobe, refine)) for nprobe, refine in grid]


BREADTHS = [16, 24, 32, 48, 64, 96, 128, 192, 256, 512]
PROBES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
CONTENDERS: dict[str, Callable[[np.ndarray], Built]] = {
    "FAISS flat": by_hand("Flat", {}),
    "ours": ours,
    "ours, backend lance": ours_in_lance,
    "FAISS IVF": by_hand("IVF4096,Flat", {"nprobe": PROBES}),
    "FAISS IVF, more lists": by_hand("IVF8192,Flat", {"nprobe": PROBES}),
    "FAISS IVF, lists by a graph": by_hand("IVF16384_HNSW32,Flat", {"nprobe": PROBES}),
    "FAISS IVF-PQ, re-ranked": by_hand(f"IVF4096,PQ{DIMENSIONS // 2}x4fs,RFlat", {"k_factor_rf": [4, 16], "nprobe": PROBES}),
    "FAISS HNSW": by_hand("HNSW24,Flat", {"efSearch": BREADTHS}),
    "hnswlib": with_hnswlib,
    "usearch": with_usearch,
    "Lance": with_lance,
}


def measure(name: str, vectors: np.ndarray, queries: np.ndarray, far: np.ndarray) -> Spec:
    """Build a contender, try its settings, return the fastest that find enough."""
    screen.print(name)
    seconds, size, settings = CONTENDERS[name](vectors)
    tried = []
    for setting, search in settings:
        found = search(queries)
        similarity = np.einsum("qkd,qd->qk", vectors[found.clip(0)], queries)
        recall = float(((similarity >= far[:, None] - 1e-6) & (found >= 0)).mean())
        if recall < 0.9 and not name.startswith("ours"):
            continue
        few = queries[: 200 if name in ("FAISS flat", "Lance", "ours, backend lance") else 1000]
        batches = [few[i : i + TOGETHER] for i in range(0, len(few) - TOGETHER + 1, TOGETHER)]
        alone, together = 1 / median_seconds(search, [few[i : i + 1] for i in range(len(few))]), TOGETHER / median_seconds(search, batches)
        tried.append({"setting": setting, "recall": recall, "alone": alone, "together": together})
        screen.print(f"  {setting}: {recall:.4f}, {alone:.0f}/s, {together:.0f}/s")
    enough = [one for one in tried if one["recall"] >= WANTED]
    best = {way: max(enough, key=lambda one: one[way]) if enough else None for way in ("alone", "together")}
    gc.collect()
    return {"contender": name, "build_seconds": seconds, "megabytes": size, "tried": tried} | best


def median_seconds(find: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray]) -> float:
    """Return the median time of a batch."""
    times = []
    for batch in batches:
        start = time.perf_counter()
        find(batch)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    """Make vectors, measure every contender, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000, help="vectors (default: %(default)s)")
    parser.add_argument(
        "--model", help="a bundle, or models:/deeprank@champion, whose embeddings are taken (default: the untrained embedder)"
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="default: all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    real = images(options.model)
    vectors, queries = grown(real, options.size, 0), grown(real, ASKED, 1)
    truth = exact(vectors, queries, K)
    far = np.einsum("qkd,qd->qk", vectors[truth], queries).min(1)
    results = [measure(name, vectors, queries, far) for name in options.contenders]
    flat = next((one for one in results if one["contender"] == "FAISS flat"), results[0])
    if options.json:
        print(json.dumps({"size": options.size, "images": len(real), "results": results}))
        return
    title = f"{options.size:,} x {DIMENSIONS}, {len(real):,} images: fastest setting with recall@10 of {WANTED} or more"
    table = Table("contender", "one by one, /s", "of flat", "in 64s, /s", "of flat", "recall", "build, s", "MiB", "setting", title=title)
    for one in results:
        cells = []
        for way in ("alone", "together"):
            cells += [f"{one[way][way]:,.0f}", f"{one[way][way] / flat[way][way]:.1f}"] if one[way] else ["not reached", ""]
        best = one["alone"] or max(
            one["tried"], key=lambda tried: tried["recall"], default={"recall": float("nan"), "setting": "below 0.9"}
        )
        table.add_row(
            one["contender"], *cells, f"{best['recall']:.4f}", f"{one['build_seconds']:.0f}", f"{one['megabytes']:,.0f}", best["setting"]
        )
    page.print(table)


if __name__ == "__main__":
    main()

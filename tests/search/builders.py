"""Helpers: small indexes of every kind, and catalogues without images."""

from pathlib import Path

import lance
import numpy as np
import pandas as pd
import pyarrow as pa

from deeprank.data.catalogue import SCHEMA, Catalogue
from deeprank.models.bundle import Bundle
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.index import Index
from deeprank.search.index_build import write_index
from deeprank.search.lance_index import LanceIndex
from deeprank.search.search_params import EXACT_SEARCH, SearchParams

SIX_CLUSTERS = ClusterSettings(n_clusters=6)
TWO_LISTS = SearchParams(kind="ivf_flat", nprobe=2)
# Each visits enough to return what exact search returns.
THOROUGH = [
    EXACT_SEARCH,
    SearchParams(kind="ivf_flat", nprobe=6),
    SearchParams(kind="two_level_ivf", nprobe=48, coarse_nprobe=6),
    SearchParams(kind="hnsw", ef_search=64),
    SearchParams(kind="ivf_pq", nprobe=6, rerank=48),
    SearchParams(kind="lance", nprobe=6),
]


def write_test_index(
    folder: Path,
    search_params: SearchParams,
    catalogue: Catalogue,
    bundle: Bundle,
    embeddings: np.ndarray,
    settings: ClusterSettings = SIX_CLUSTERS,
) -> Index:
    """Cluster and index a catalogue; for kind lance, in the table <folder>.lance that holds rows of other catalogues too."""
    clusters, lance_index = cluster_embeddings(embeddings, settings), None
    if search_params.kind == "lance":
        uri = str(folder.parent / f"{folder.name}.lance")
        append_embeddings(uri, ["other"], -embeddings[:1])
        append_embeddings(uri, catalogue.frame["id"].tolist(), embeddings)
        append_embeddings(uri, ["another"], embeddings[3:4])
        lance_index = LanceIndex.build(uri, catalogue.frame["id"].tolist(), clusters.centroids)
    return write_index(folder, bundle, catalogue, embeddings, clusters, search_params, lance_index)


def append_embeddings(uri: str, ids: list[str], vectors: np.ndarray) -> None:
    """Append vectors to a Lance table of embeddings, created where there is none."""
    columns = {"id": ids, "vector": pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(vectors).ravel(), vectors.shape[1])}
    lance.write_dataset(pa.table(columns), uri, mode="append" if Path(uri).exists() else "create")


def unit_vectors(rng: np.random.Generator, count: int, embedding_dim: int) -> np.ndarray:
    """Return random vectors (count, embedding_dim) of unit length."""
    vectors = rng.standard_normal((count, embedding_dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def append_events(folder: Path, events: pd.DataFrame) -> Catalogue:
    """Append events without images to a catalogue, created where there is none, and return its newest version."""
    table = pa.Table.from_pandas(events, SCHEMA, preserve_index=False)
    lance.write_dataset(table, str(folder), mode="append" if folder.exists() else "create")
    return Catalogue(str(folder), lance.dataset(str(folder)).version)


def image_events(numbers: np.ndarray, status: str = "ok") -> pd.DataFrame:
    """Return events of images whose ids are their numbers in hex."""
    ids = [f"{number:08x}" for number in numbers]
    columns: dict[str, object] = {"path": [f"{id}.jpg" for id in ids], "id": ids, "label": [f"l{n % 7}/m{n % 70}" for n in numbers]}
    columns |= {"size": 1, "mtime_ns": 1, "ctime_ns": 1, "width": 1, "height": 1, "phash": 1}
    columns |= {"duplicate_group": ids, "split": "train", "status": status}
    return pd.DataFrame(columns | {"reason": "", "has_image": False, "image": None})

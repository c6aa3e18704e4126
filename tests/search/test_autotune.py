"""The fastest search parameters that reach the required recall are chosen, and the reason is reported."""

import json
from pathlib import Path

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from deeprank.reporting import Record
from deeprank.search.autotune import AutotuneResult, IndexSettings, _pareto_front, autotune
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.clusters import Clusters
from deeprank.search.lance_index import LanceIndex
from deeprank.search.search_params import SearchParams

FAISS_KINDS = {"exact", "ivf_flat", "two_level_ivf", "hnsw", "ivf_pq"}


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((40, 16), dtype=np.float32)
    points = centers[rng.integers(40, size=3000)] + 0.3 * rng.standard_normal((3000, 16), dtype=np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def clusters(vectors: np.ndarray) -> Clusters:
    return cluster_embeddings(vectors, ClusterSettings(n_clusters=40))


@pytest.fixture(scope="module")
def measured(vectors: np.ndarray, clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> tuple[AutotuneResult, Record]:
    record = Record(tmp_path_factory.mktemp("record"))
    return autotune(vectors, clusters, IndexSettings(max_exact_latency_ms=0), record), record


def _lance_index(folder: Path, vectors: np.ndarray, clusters: Clusters) -> LanceIndex:
    ids, uri = [f"{i:08x}" for i in range(len(vectors))], str(folder / "e.lance")
    lance.write_dataset(pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])}), uri)
    return LanceIndex.build(uri, ids, clusters.centroids)


def test_every_kind_is_measured(measured: tuple[AutotuneResult, Record]) -> None:
    table = measured[0].measurements
    assert set(table["kind"]) == FAISS_KINDS
    assert table["recall_at_10"].iloc[0] == 1
    # One of the 40 clusters does not hold all neighbors; all of them do.
    recalls = table[table["kind"] == "ivf_flat"]["recall_at_10"]
    assert recalls.iloc[0] < 0.999 <= recalls.iloc[-1]


def test_fastest_with_the_required_recall_is_chosen(measured: tuple[AutotuneResult, Record]) -> None:
    result = measured[0]
    table = result.measurements
    fastest = table[table["recall_at_10_low"] >= 0.99].sort_values("latency_ms", kind="stable").iloc[0]
    assert str(result.search_params) == fastest["search_params"]
    assert table.set_index("search_params").loc[str(result.search_params), "pareto_optimal"]
    assert (result.structure is None) == (result.search_params.kind == "exact")


def test_measurements_of_the_chosen_params_are_reported(measured: tuple[AutotuneResult, Record]) -> None:
    result, record = measured
    metrics = {point.name: point.value for point in record.points}
    row = result.measurements.set_index("search_params").loc[str(result.search_params)]
    assert metrics["index.recall_at_10"] == row["recall_at_10"]
    assert metrics["index.latency_ms"] == row["latency_ms"]
    assert metrics["index.queries_per_second"] == row["queries_per_second"]
    assert metrics["index.exact_latency_ms"] == result.measurements["latency_ms"].iloc[0]
    assert record.notes == {"index.kind": str(result.search_params), "index.reason": result.reason}
    assert set(record.figures) == {"index_autotune"}
    assert pd.read_csv(record.attached[0])["search_params"].tolist() == result.measurements["search_params"].tolist()


def test_exact_search_within_the_latency_limit_is_chosen(vectors: np.ndarray, clusters: Clusters, tmp_path: Path) -> None:
    result = autotune(vectors, clusters, IndexSettings(max_exact_latency_ms=1000), Record(tmp_path))
    assert result.search_params == SearchParams(kind="exact")
    assert result.reason.startswith("comparing with all 3,000 images takes ")
    assert result.reason.endswith(" ms, within the 1000 ms set")


def test_fixed_search_params_are_not_measured(vectors: np.ndarray, clusters: Clusters, tmp_path: Path) -> None:
    settings = IndexSettings.model_validate(json.loads('{"search_params": {"kind": "ivf_flat", "nprobe": 1}}'))
    record = Record(tmp_path)
    result = autotune(vectors, clusters, settings, record)
    assert (result.search_params, result.structure) == (SearchParams(kind="ivf_flat", nprobe=1), None)
    assert result.reason == "set manually"
    assert record.notes["index.kind"] == "ivf_flat, nprobe 1"


def test_fastest_params_of_a_lance_table_are_chosen(vectors: np.ndarray, clusters: Clusters, tmp_path: Path) -> None:
    lance_index = _lance_index(tmp_path, vectors, clusters)
    settings = IndexSettings(backend="lance", min_recall=0.95)
    result = autotune(vectors, clusters, settings, Record(tmp_path / "record"), lance_index)
    table = result.measurements
    sufficient = table[(table["recall_at_10_low"] >= 0.95) & (table["kind"] == "lance")]
    assert result.structure is lance_index
    assert str(result.search_params) == sufficient.sort_values("latency_ms", kind="stable")["search_params"].iloc[0]
    assert set(table["kind"]) == {"exact", "lance"}


def test_recall_of_1_can_be_required(vectors: np.ndarray, clusters: Clusters, tmp_path: Path) -> None:
    lance_index = _lance_index(tmp_path, vectors, clusters)
    result = autotune(vectors, clusters, IndexSettings(backend="lance", min_recall=1), Record(tmp_path), lance_index)
    assert result.measurements.set_index("search_params").loc[str(result.search_params), "recall_at_10_low"] == 1
    assert result.reason.startswith("the fastest with recall@10 1:")


@pytest.mark.parametrize("search_params", ["fast", {"kind": "ivf"}, {"kind": "ivf_flat", "probe": 1}, {"kind": "ivf_flat"}])
def test_unknown_or_incomplete_search_params_are_refused(search_params: object) -> None:
    with pytest.raises(ValidationError):
        IndexSettings.model_validate({"search_params": search_params})


@pytest.mark.parametrize(("backend", "kind"), [("faiss", "lance"), ("lance", "ivf_flat")])
def test_kind_of_another_backend_is_refused(backend: str, kind: str) -> None:
    with pytest.raises(ValidationError, match=f"backend {backend} has no search of kind {kind}"):
        IndexSettings.model_validate({"backend": backend, "search_params": {"kind": kind, "nprobe": 1}})


def test_pareto_front_leaves_out_beaten_rows() -> None:
    table = pd.DataFrame({"recall_at_10": [1.0, 0.9, 0.9, 0.95, 0.5], "latency_ms": [10.0, 1.0, 2.0, 5.0, 1.0]})
    assert _pareto_front(table).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("count", [3, 4, 7, 12, 15, 16, 40])
def test_every_kind_is_measured_with_few_images(count: int, vectors: np.ndarray, tmp_path: Path) -> None:
    clusters = cluster_embeddings(vectors[:count], ClusterSettings(n_clusters=2))
    result = autotune(vectors[:count], clusters, IndexSettings(), Record(tmp_path))
    assert set(result.measurements["kind"]) == FAISS_KINDS

"""The operating point is the fastest that finds enough, and says why."""

import json
from pathlib import Path

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from deeprank.reporting import Record
from deeprank.search.autotune import Choice, IndexSettings, _unbeaten, choose
from deeprank.search.clusters import Clusters, ClusterSettings, cluster
from deeprank.search.faiss_index import SearchParams
from deeprank.search.lance_index import LanceIndex


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((40, 16), dtype=np.float32)
    found = centers[rng.integers(40, size=3000)] + 0.3 * rng.standard_normal((3000, 16), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def clusters(vectors: np.ndarray) -> Clusters:
    return cluster(vectors, ClusterSettings(clusters=40))


@pytest.fixture(scope="module")
def measured(vectors: np.ndarray, clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> tuple[Choice, Record]:
    record = Record(tmp_path_factory.mktemp("record"))
    return choose(vectors, clusters, IndexSettings(exact_within_ms=0), record), record


def test_every_kind_is_tried(measured: tuple[Choice, Record]) -> None:
    table = measured[0].table
    assert set(table["kind"]) == {"exact", "ivf_flat", "two_level_ivf", "hnsw", "ivf_pq"}
    assert table["recall_at_10"].iloc[0] == 1
    # One cluster of 40 does not hold all neighbors, all of them do.
    lists = table[table["kind"] == "ivf_flat"]["recall_at_10"]
    assert lists.iloc[0] < 0.999 <= lists.iloc[-1]


def test_the_chosen_point_is_the_fastest_of_those_that_find_enough(measured: tuple[Choice, Record]) -> None:
    choice = measured[0]
    enough = choice.table[choice.table["recall_low"] >= 0.99]
    assert str(choice.point) == enough.sort_values("milliseconds", kind="stable")["point"].iloc[0]
    assert choice.table.set_index("point").loc[str(choice.point), "unbeaten"]
    assert (choice.structure is None) == (choice.point.kind == "exact")


def test_what_was_measured_is_reported(measured: tuple[Choice, Record]) -> None:
    choice, record = measured
    reported = {point.name: point.value for point in record.points}
    row = choice.table.set_index("point").loc[str(choice.point)]
    assert reported["index.recall_at_10"] == row["recall_at_10"]
    assert reported["index.milliseconds"] == row["milliseconds"]
    assert reported["index.exact_milliseconds"] == choice.table["milliseconds"].iloc[0]
    assert record.notes == {"index.kind": str(choice.point), "index.reason": choice.reason}
    assert set(record.figures) == {"index_choice"}
    assert pd.read_csv(record.attached[0])["point"].tolist() == choice.table["point"].tolist()


def test_while_comparing_with_everything_costs_nothing_it_is_taken_and_the_reason_said(
    vectors: np.ndarray, clusters: Clusters, tmp_path: Path
) -> None:
    choice = choose(vectors, clusters, IndexSettings(exact_within_ms=1000), Record(tmp_path))
    assert choice.point == SearchParams(kind="exact")
    assert choice.reason.startswith("comparing with all 3,000 takes ")
    assert choice.reason.endswith(" ms, within the 1000 ms set")


def test_a_point_by_hand_is_taken_as_it_is(vectors: np.ndarray, clusters: Clusters, tmp_path: Path) -> None:
    settings = IndexSettings.model_validate(json.loads('{"search": {"kind": "ivf_flat", "nprobe": 1}}'))
    record = Record(tmp_path)
    choice = choose(vectors, clusters, settings, record)
    assert (choice.point, choice.structure, choice.reason) == (SearchParams(kind="ivf_flat", nprobe=1), None, "set by hand")
    assert record.notes["index.kind"] == "clusters, nprobe 1"


def test_of_lances_points_the_fastest_that_finds_enough_is_chosen(vectors: np.ndarray, clusters: Clusters, tmp_path: Path) -> None:
    ids, uri = [f"{i:08x}" for i in range(len(vectors))], str(tmp_path / "e.lance")
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    lance.write_dataset(pa.table({"id": ids, "vector": column}), uri)
    table = LanceIndex.build(uri, ids, clusters.centroids)
    choice = choose(vectors, clusters, IndexSettings(backend="lance", recall=0.95), Record(tmp_path / "record"), table)
    enough = choice.table[(choice.table["recall_low"] >= 0.95) & (choice.table["kind"] == "lance")]
    assert choice.structure is table
    assert str(choice.point) == enough.sort_values("milliseconds", kind="stable")["point"].iloc[0]
    assert set(choice.table["kind"]) == {"exact", "lance"}


@pytest.mark.parametrize("search", ["fast", {"kind": "ivf"}, {"kind": "ivf_flat", "probe": 1}, {"kind": "ivf_flat"}])
def test_a_way_that_there_is_not_is_refused(search: object) -> None:
    with pytest.raises(ValidationError):
        IndexSettings.model_validate({"search": search})


@pytest.mark.parametrize(("backend", "kind"), [("faiss", "lance"), ("lance", "ivf_flat")])
def test_a_way_of_another_backend_is_refused(backend: str, kind: str) -> None:
    with pytest.raises(ValidationError, match=f"backend {backend} has no search of kind {kind}"):
        IndexSettings.model_validate({"backend": backend, "search": {"kind": kind, "nprobe": 1}})


def test_unbeaten_points() -> None:
    table = pd.DataFrame({"recall_at_10": [1.0, 0.9, 0.9, 0.95, 0.5], "milliseconds": [10.0, 1.0, 2.0, 5.0, 1.0]})
    assert _unbeaten(table).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("count", [3, 4, 7, 12, 15, 16, 40])
def test_few_images_can_be_searched_in_every_way(count: int, vectors: np.ndarray, tmp_path: Path) -> None:
    few = vectors[:count]
    choice = choose(few, cluster(few, ClusterSettings(clusters=2)), IndexSettings(), Record(tmp_path))
    assert set(choice.table["kind"]) == {"exact", "ivf_flat", "two_level_ivf", "hnsw", "ivf_pq"}


def test_a_recall_of_1_is_looked_for_to_the_end(vectors: np.ndarray, clusters: Clusters, tmp_path: Path) -> None:
    columns = {"id": [str(i) for i in range(len(vectors))], "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])}
    lance.write_dataset(pa.table(columns), str(tmp_path / "e.lance"))
    table = LanceIndex.build(str(tmp_path / "e.lance"), columns["id"], clusters.centroids)
    choice = choose(vectors, clusters, IndexSettings(backend="lance", recall=1), Record(tmp_path), table)
    assert choice.table.set_index("point").loc[str(choice.point), "recall_low"] == 1
    assert choice.reason.startswith("the fastest with recall@10 1:")

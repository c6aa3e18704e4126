"""The index finds what comparing with every photograph finds, and is refused where it does not fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.model.bundle import Bundle
from deeprank.reporting import Record
from deeprank.search.build import build_index
from deeprank.search.cluster import ClusterSettings, cluster
from deeprank.search.index import ROW_COLUMNS, Index
from tests.conftest import save_untrained

FILES = ["index.faiss", "centroids.npy", "rows.parquet"]
EXACT = ClusterSettings(clusters=6)
INVERTED = ClusterSettings(clusters=6, exact_below=1, probes=2)
ALL_LISTS = ClusterSettings(clusters=6, exact_below=1, probes=100)


def _build(folder: Path, settings: ClusterSettings, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray) -> Index:
    return Index.build(folder, bundle, catalogue, embeddings, cluster(embeddings, settings), settings)


@pytest.fixture(scope="module")
def index(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return _build(tmp_path_factory.mktemp("index"), EXACT, catalogue, bundle, embeddings)


@pytest.fixture
def copy(index: Index, tmp_path: Path) -> Index:
    """A copy to break."""
    return Index(Path(shutil.copytree(index.folder, tmp_path / "copy")))


@pytest.mark.parametrize("settings", [EXACT, ALL_LISTS], ids=["exact", "all lists looked into"])
def test_search_finds_the_nearest_at_their_euclidean_distance(
    settings: ClusterSettings, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    _build(tmp_path / "i", settings, catalogue, bundle, embeddings)
    queries = np.random.default_rng(0).normal(size=(9, embeddings.shape[1])).astype(np.float32)
    queries = np.concatenate([queries / np.linalg.norm(queries, axis=1, keepdims=True), embeddings[[3, 30]]])
    results = Index(tmp_path / "i").search(queries, 10)
    assert len(results) == len(queries)
    for query, found in zip(queries, results, strict=True):
        distance = np.linalg.norm(embeddings.astype(np.float64) - query, axis=1)
        assert found["distance"].to_numpy() == pytest.approx(np.sort(distance)[:10], abs=1e-5)
        rows = [catalogue.frame["path"].tolist().index(path) for path in found["path"]]
        assert distance[rows] == pytest.approx(found["distance"].to_numpy(), abs=1e-5)
        assert found["label"].tolist() == catalogue.frame["label"].iloc[rows].tolist()
        assert found["id"].tolist() == catalogue.frame["id"].iloc[rows].tolist()


@pytest.mark.parametrize("settings", [EXACT, INVERTED], ids=["exact", "inverted"])
def test_a_photograph_of_the_catalogue_is_at_distance_0_from_itself(
    settings: ClusterSettings, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    found = _build(tmp_path, settings, catalogue, bundle, embeddings).search(embeddings, 1)
    assert [result["distance"][0] for result in found] == [0.0] * len(embeddings)


def test_inverted_lists_look_into_the_nearest_clusters_only(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    clusters = cluster(embeddings, INVERTED)
    index = Index.build(tmp_path, bundle, catalogue, embeddings, clusters, INVERTED)
    for query, found in zip(embeddings, index.search(embeddings, len(embeddings)), strict=True):
        nearest = np.argsort(-(clusters.centroids @ query))[: INVERTED.probes]
        expected = np.flatnonzero(np.isin(clusters.assigned, nearest))
        assert sorted(found["path"]) == sorted(catalogue.frame["path"].iloc[expected])
        assert set(found["cluster"]) <= set(nearest.tolist())
    assert "inverted lists" in str(index.facts["kind"])


def test_more_neighbours_than_photographs_are_all_of_them(index: Index, embeddings: np.ndarray) -> None:
    (found,) = index.search(embeddings[:1], 1000)
    assert len(found) == len(embeddings)
    assert found["distance"].is_monotonic_increasing


def test_rows_say_what_each_entry_is(index: Index, catalogue: Catalogue) -> None:
    assert index.rows.columns.tolist() == ROW_COLUMNS
    for column in ("path", "id", "label", "split", "image_row"):
        assert index.rows[column].tolist() == catalogue.frame[column].tolist()


def test_the_index_says_which_model_and_catalogue_it_belongs_to(index: Index, bundle: Bundle, catalogue: Catalogue) -> None:
    assert index.facts["model"] == bundle.weights_hash
    assert index.facts["catalogue"] == {"uri": catalogue.uri, "version": catalogue.version}
    assert index.facts["kind"] == "exact"
    index.require(bundle)


def test_another_model_is_refused(index: Index, tmp_path: Path) -> None:
    other = save_untrained(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match=f"{index.folder} was built with another model than {other.folder}: build it anew"):
        index.require(other)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_flipped_bit_is_noticed_and_the_file_named(
    copy: Index, name: str, place: float, embeddings: np.ndarray, bundle: Bundle
) -> None:
    file = copy.folder / name
    data = bytearray(file.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    file.write_bytes(data)
    for use in (lambda: copy.search(embeddings[:1], 1), lambda: copy.require(bundle)):
        with pytest.raises(ModelError, match=f"{file} is missing or damaged"):
            use()


@pytest.mark.parametrize("name", [*FILES, "index.json"])
def test_a_missing_file_is_named(copy: Index, name: str, embeddings: np.ndarray) -> None:
    (copy.folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        copy.search(embeddings[:1], 1)


@pytest.mark.parametrize("format_number", [0, 2, "1", None])
def test_an_index_of_another_format_is_refused_with_both_numbers(
    copy: Index, format_number: object, embeddings: np.ndarray, bundle: Bundle
) -> None:
    file = copy.folder / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": format_number}))
    for use in (lambda: copy.search(embeddings[:1], 1), lambda: copy.require(bundle)):
        with pytest.raises(ModelError) as error:
            use()
        assert str(error.value) == f"{file}: format {format_number} is not the format 1 that this version reads"


@pytest.mark.parametrize("key", ["format", "model", "checksums"])
def test_a_key_that_is_missing_is_damage(copy: Index, key: str, bundle: Bundle) -> None:
    file = copy.folder / "index.json"
    file.write_text(json.dumps({name: fact for name, fact in json.loads(file.read_text()).items() if name != key}))
    with pytest.raises(ModelError, match=f"{file} is damaged: a key is missing"):
        copy.require(bundle)


@pytest.mark.parametrize("text", ['{"format": 1,', "[]", "3", ""])
def test_an_index_json_that_is_no_object_is_damage(copy: Index, text: str, bundle: Bundle) -> None:
    file = copy.folder / "index.json"
    file.write_text(text)
    with pytest.raises(ModelError, match=f"{file} is damaged"):
        copy.require(bundle)


def test_building_embeds_clusters_indexes_and_reports(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    index = build_index(tmp_path / "i", catalogue, bundle, EXACT, record)
    reported = {point.name: point.value for point in record.points}
    assert reported["clusters.count"] == 6
    assert 0 < reported["clusters.purity"] <= 1
    assert -1 <= reported["clusters.ami"] <= 1
    assert record.notes == {"index.kind": "exact"}
    assert set(record.figures) == {"cluster_montage"}
    assert index.search(embeddings[5:6], 1)[0]["path"].tolist() == [catalogue.frame["path"][5]]
    assert json.loads((tmp_path / "i" / "index.json").read_text())["checksums"].keys() == set(FILES)

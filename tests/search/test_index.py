"""The index returns what exact search returns, and is refused where it does not fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError, ModelError
from deeprank.models.bundle import Bundle
from deeprank.search.index import Index
from deeprank.search.search_params import SearchParams
from tests.conftest import save_untrained
from tests.search.builders import THOROUGH, TWO_LISTS, unit_vectors, write_test_index

FILES = ["vectors.npy", "structure.faiss", "rows.parquet", "centroids.npy"]


@pytest.fixture(scope="module")
def index(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return write_test_index(tmp_path_factory.mktemp("index"), TWO_LISTS, catalogue, bundle, embeddings)


@pytest.fixture
def copy(index: Index, tmp_path: Path) -> Index:
    """A copy whose files a test may damage."""
    return Index(Path(shutil.copytree(index.folder, tmp_path / "copy")))


@pytest.mark.parametrize("search_params", THOROUGH, ids=str)
def test_results_are_the_nearest_with_euclidean_distances(
    search_params: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    write_test_index(tmp_path / "i", search_params, catalogue, bundle, embeddings)
    queries = np.concatenate([unit_vectors(np.random.default_rng(0), 9, embeddings.shape[1]), embeddings[[3, 30]]])
    results = Index(tmp_path / "i").search(queries, 10)
    assert len(results) == len(queries)
    for query, result in zip(queries, results, strict=True):
        distances = np.linalg.norm(embeddings.astype(np.float64) - query, axis=1)
        assert result["distance"].to_numpy() == pytest.approx(np.sort(distances)[:10], abs=1e-5)
        rows = [catalogue.frame["path"].tolist().index(path) for path in result["path"]]
        assert distances[rows] == pytest.approx(result["distance"].to_numpy(), abs=1e-5)
        assert result["label"].tolist() == catalogue.frame["label"].iloc[rows].tolist()
        assert result["id"].tolist() == catalogue.frame["id"].iloc[rows].tolist()


@pytest.mark.parametrize("search_params", THOROUGH, ids=str)
def test_weighted_queries_are_answered_by_their_similarity(
    search_params: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    weights = np.repeat([0.2, 2.5], [embeddings.shape[1] // 2, embeddings.shape[1] - embeddings.shape[1] // 2])
    queries = (unit_vectors(np.random.default_rng(0), 9, embeddings.shape[1]) * weights).astype(np.float32)
    index = write_test_index(tmp_path, search_params, catalogue, bundle, embeddings)
    for query, result in zip(queries, index.search(queries, 10), strict=True):
        similarities = embeddings.astype(np.float64) @ query
        expected = np.sqrt(np.maximum(0, 2 - 2 * np.sort(similarities)[::-1][:10]))
        assert result["distance"].to_numpy() == pytest.approx(expected, abs=1e-4)
        limit = float(expected[[2, 7]].mean())
        assert len(index.search(query[None], 10, max_distance=limit)[0]) == (expected < limit).sum()


@pytest.mark.parametrize("search_params", [*THOROUGH, TWO_LISTS], ids=str)
def test_indexed_image_is_at_distance_0_from_itself(
    search_params: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    results = write_test_index(tmp_path, search_params, catalogue, bundle, embeddings).search(embeddings, 1)
    assert [result["distance"][0] for result in results] == [0.0] * len(embeddings)


@pytest.mark.parametrize("nprobe", [1, 2, 3])
def test_ivf_flat_is_the_search_of_the_original_scripts(
    nprobe: int, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    """Compute the cluster means; compare the query with them; take the nearest clusters; compare with the images in these."""
    index = write_test_index(tmp_path, SearchParams(kind="ivf_flat", nprobe=nprobe), catalogue, bundle, embeddings)
    means = index.clusters.centroids
    queries = np.concatenate([unit_vectors(np.random.default_rng(1), 40, embeddings.shape[1]), embeddings])
    for query, result in zip(queries, index.search(queries, 7), strict=True):
        nearest = np.argsort(np.linalg.norm(means - query, axis=1))[:nprobe]
        inside = [i for i in range(len(embeddings)) if np.argmin(np.linalg.norm(means - embeddings[i], axis=1)) in nearest]
        expected = sorted(inside, key=lambda i: float(np.linalg.norm(embeddings[i] - query)))[:7]
        assert result["distance"].tolist() == pytest.approx([float(np.linalg.norm(embeddings[i] - query)) for i in expected], abs=1e-5)
        assert set(result["path"]) == set(catalogue.frame["path"].iloc[expected])
        assert set(result["cluster"]) <= set(nearest.tolist())


def test_more_neighbors_than_images_returns_all_images(index: Index, embeddings: np.ndarray) -> None:
    (result,) = index.search(embeddings[:1], 1000)
    assert len(result) == len(embeddings)
    assert result["distance"].is_monotonic_increasing


def test_another_model_is_refused(index: Index, bundle: Bundle, tmp_path: Path) -> None:
    index.check_model(bundle)
    other = save_untrained(tmp_path / "other", seed=1)
    message = f"{index.folder} was built with another model than {other.folder}: build the index again with this model"
    with pytest.raises(ModelError, match=message):
        index.check_model(other)


@pytest.mark.parametrize("search_params", THOROUGH, ids=str)
def test_label_prefix_selects_a_label_and_those_below_it(
    search_params: SearchParams,
    catalogue: Catalogue,
    bundle: Bundle,
    embeddings: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, labels = write_test_index(tmp_path, search_params, catalogue, bundle, embeddings), catalogue.frame["label"]
    for max_exact in (20_000, 0):
        monkeypatch.setattr("deeprank.search.index.MAX_EXACT_FILTERED", max_exact)
        for label_prefix in (labels[0], labels[0].rsplit("/", 1)[0]):
            rows = np.flatnonzero((labels == label_prefix) | labels.str.startswith(label_prefix + "/"))
            assert 1 < len(rows) < len(labels)
            (result,) = index.search(embeddings[-1:], 5, label_prefix=label_prefix)
            distances = np.sort(np.linalg.norm(embeddings[rows] - embeddings[-1], axis=1))[:5]
            assert result["distance"].tolist() == pytest.approx(distances.tolist(), abs=1e-5)
    for label_prefix in (labels[0][:-1], f"{labels[0]}x"):
        with pytest.raises(DataError, match=f"no image has the label {label_prefix} or one below it; nearest: .*{labels[0]}"):
            index.search(embeddings[:1], 5, label_prefix=label_prefix)


@pytest.mark.parametrize("search_params", [SearchParams(kind="ivf_flat", nprobe=1), SearchParams(kind="hnsw", ef_search=5)], ids=str)
def test_label_prefix_returns_k_images_however_far_they_are(
    search_params: SearchParams,
    catalogue: Catalogue,
    bundle: Bundle,
    embeddings: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deeprank.search.index.MAX_EXACT_FILTERED", 0)
    monkeypatch.setattr("deeprank.search.index.COMPARE_BLOCK", 3)
    index = write_test_index(tmp_path, search_params, catalogue, bundle, embeddings)
    for label_prefix in catalogue.frame["label"].unique():
        results = index.search(embeddings, 5, label_prefix=label_prefix)
        assert [len(result) for result in results] == [5] * len(embeddings)
        assert {label for result in results for label in result["label"]} == {label_prefix}
        assert all(result["distance"].is_monotonic_increasing for result in results)


def test_max_distance_keeps_the_nearer_images(index: Index, embeddings: np.ndarray) -> None:
    (unlimited,) = index.search(embeddings[:1], 10)
    (result,) = index.search(embeddings[:1], 10, max_distance=unlimited["distance"][4])
    assert result["path"].tolist() == unlimited["path"][:5].tolist()


def test_embeddings_are_returned_by_image_id(index: Index, catalogue: Catalogue, embeddings: np.ndarray) -> None:
    positions = index.positions_of(catalogue.frame["id"].iloc[[7, 2]].tolist())
    assert (index.embeddings(positions) == embeddings[[7, 2]]).all()
    with pytest.raises(DataError, match="no image ff00 in this index"):
        index.positions_of(["ff00"])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0.0, 0.5, 1.0])
def test_flipped_bit_is_an_error_that_names_the_file(
    copy: Index, name: str, position: float, embeddings: np.ndarray, bundle: Bundle
) -> None:
    file = copy.folder / name
    data = bytearray(file.read_bytes())
    data[int(position * (len(data) - 1))] ^= 1
    file.write_bytes(data)
    for use in (lambda: copy.search(embeddings[:1], 1), lambda: copy.check_model(bundle)):
        with pytest.raises(ModelError, match=f"{file} is missing or damaged"):
            use()


@pytest.mark.parametrize("name", [*FILES, "index.json"])
def test_missing_file_is_named(copy: Index, name: str, embeddings: np.ndarray) -> None:
    (copy.folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        copy.search(embeddings[:1], 1)


@pytest.mark.parametrize("format_number", [0, 3, "4", None])
def test_other_format_is_refused_with_both_numbers(copy: Index, format_number: object, embeddings: np.ndarray, bundle: Bundle) -> None:
    file = copy.folder / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": format_number}))
    for use in (lambda: copy.search(embeddings[:1], 1), lambda: copy.check_model(bundle)):
        with pytest.raises(ModelError) as error:
            use()
        expected = f"{file}: format {format_number} is not the format 4 that this version reads; build the index again: deeprank run"
        assert str(error.value) == expected


def test_older_index_with_other_keys_is_refused_by_its_format(copy: Index, bundle: Bundle) -> None:
    file = copy.folder / "index.json"
    manifest = json.loads(file.read_text())
    older = {"format": 3, "search": manifest["search_params"], "model": manifest["weights_hash"], "changes": {}}
    file.write_text(json.dumps(older | {name: manifest[name] for name in ("catalogue", "checksums")}))
    with pytest.raises(ModelError, match="format 3 is not the format 4 that this version reads; build the index again"):
        copy.check_model(bundle)


@pytest.mark.parametrize("key", ["format", "weights_hash", "checksums"])
def test_missing_key_is_damage(copy: Index, key: str, bundle: Bundle) -> None:
    file = copy.folder / "index.json"
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != key}))
    with pytest.raises(ModelError, match=f"{file} is damaged: a key is missing"):
        copy.check_model(bundle)


@pytest.mark.parametrize("text", ['{"format": 1,', "[]", "3", ""])
def test_index_json_without_an_object_is_damage(copy: Index, text: str, bundle: Bundle, embeddings: np.ndarray) -> None:
    file = copy.folder / "index.json"
    file.write_text(text)
    for use in (lambda: copy.search(embeddings[:1], 1), lambda: copy.check_model(bundle)):
        with pytest.raises(ModelError, match=f"{file} is damaged"):
            use()


def test_index_json_alone_and_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"format": 1,')
    with pytest.raises(ModelError, match=r"index\.json"):
        Index(tmp_path).search(np.zeros((1, 16), dtype=np.float32), 1)


def test_changed_reference_to_the_catalogue_is_damage(copy: Index, bundle: Bundle) -> None:
    file = copy.folder / "index.json"
    manifest = json.loads(file.read_text())
    manifest["catalogue"]["version"] ^= 1
    file.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=f"{file} is damaged: its content does not match its checksum"):
        copy.check_model(bundle)

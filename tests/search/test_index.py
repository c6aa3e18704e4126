"""The index finds what comparing with every image finds, and is refused where it does not fit."""

import json
import shutil
import time
from pathlib import Path

import faiss
import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from deeprank.data.catalogue import SCHEMA, Catalogue
from deeprank.errors import DataError, ModelError
from deeprank.models.bundle import Bundle
from deeprank.reporting import Record
from deeprank.search.autotune import IndexSettings
from deeprank.search.build import build_index, cluster_catalogue
from deeprank.search.clusters import Clusters, ClusterSettings, cluster
from deeprank.search.faiss_index import SearchParams, build_structure, exact
from deeprank.search.index import ROW_COLUMNS, Index
from deeprank.search.lance_index import LanceIndex
from tests.conftest import save_untrained

FILES = ["vectors.npy", "structure.faiss", "rows.parquet", "centroids.npy"]
SIX = ClusterSettings(clusters=6)
EXACT_SEARCH = SearchParams(kind="exact")
TWO_LISTS = SearchParams(kind="ivf_flat", nprobe=2)
# Each so thorough that it must find what comparing with every image finds.
THOROUGH = [
    EXACT_SEARCH,
    SearchParams(kind="ivf_flat", nprobe=6),
    SearchParams(kind="two_level_ivf", nprobe=48, coarse_nprobe=6),
    SearchParams(kind="hnsw", ef_search=64),
    SearchParams(kind="ivf_pq", nprobe=6, rerank=48),
    SearchParams(kind="lance", nprobe=6),
]


def _build(
    folder: Path, point: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, settings: ClusterSettings = SIX
) -> Index:
    clusters, table = cluster(embeddings, settings), None
    if point.kind == "lance":
        uri = str(folder.parent / f"{folder.name}.lance")
        # Among rows of other catalogues, which are not to be found.
        _store(uri, ["other"], -embeddings[:1])
        _store(uri, catalogue.frame["id"].tolist(), embeddings)
        _store(uri, ["another"], embeddings[3:4])
        table = LanceIndex.build(uri, catalogue.frame["id"].tolist(), clusters.centroids)
    return Index.build(folder, bundle, catalogue, embeddings, clusters, point, table)


def _store(uri: str, ids: list[str], vectors: np.ndarray) -> None:
    columns = {"id": ids, "vector": pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(vectors).ravel(), vectors.shape[1])}
    lance.write_dataset(pa.table(columns), uri, mode="append" if Path(uri).exists() else "create")


def _unit(rng: np.random.Generator, count: int, embedding_dim: int) -> np.ndarray:
    found = rng.standard_normal((count, embedding_dim), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def index(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return _build(tmp_path_factory.mktemp("index"), TWO_LISTS, catalogue, bundle, embeddings)


@pytest.fixture
def copy(index: Index, tmp_path: Path) -> Index:
    """A copy to break."""
    return Index(Path(shutil.copytree(index.folder, tmp_path / "copy")))


@pytest.mark.parametrize("point", THOROUGH, ids=str)
def test_search_finds_the_nearest_at_their_euclidean_distance(
    point: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    _build(tmp_path / "i", point, catalogue, bundle, embeddings)
    queries = np.concatenate([_unit(np.random.default_rng(0), 9, embeddings.shape[1]), embeddings[[3, 30]]])
    results = Index(tmp_path / "i").search(queries, 10)
    assert len(results) == len(queries)
    for query, found in zip(queries, results, strict=True):
        distance = np.linalg.norm(embeddings.astype(np.float64) - query, axis=1)
        assert found["distance"].to_numpy() == pytest.approx(np.sort(distance)[:10], abs=1e-5)
        rows = [catalogue.frame["path"].tolist().index(path) for path in found["path"]]
        assert distance[rows] == pytest.approx(found["distance"].to_numpy(), abs=1e-5)
        assert found["label"].tolist() == catalogue.frame["label"].iloc[rows].tolist()
        assert found["id"].tolist() == catalogue.frame["id"].iloc[rows].tolist()


@pytest.mark.parametrize("point", [*THOROUGH, TWO_LISTS], ids=str)
def test_a_image_of_the_catalogue_is_at_distance_0_from_itself(
    point: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    found = _build(tmp_path, point, catalogue, bundle, embeddings).search(embeddings, 1)
    assert [result["distance"][0] for result in found] == [0.0] * len(embeddings)


@pytest.mark.parametrize("point", THOROUGH, ids=str)
def test_the_same_images_give_the_same_bytes(
    point: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    first, second = (_build(tmp_path / name, point, catalogue, bundle, embeddings) for name in ("a", "b"))
    # Lance names its files anew each time.
    assert {**first.facts, "table": None} == {**second.facts, "table": None}


@pytest.mark.parametrize("nprobe", [1, 2, 3])
def test_the_four_steps_of_the_seed(nprobe: int, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path) -> None:
    """Cluster and keep the means; compare the query with the means; take the closest cluster (or a few); compare inside it."""
    index = _build(tmp_path, SearchParams(kind="ivf_flat", nprobe=nprobe), catalogue, bundle, embeddings)
    means = index.clusters.centroids
    queries = np.concatenate([_unit(np.random.default_rng(1), 40, embeddings.shape[1]), embeddings])
    for query, found in zip(queries, index.search(queries, 7), strict=True):
        closest = np.argsort(np.linalg.norm(means - query, axis=1))[:nprobe]
        inside = [i for i in range(len(embeddings)) if np.argmin(np.linalg.norm(means - embeddings[i], axis=1)) in closest]
        expected = sorted(inside, key=lambda i: float(np.linalg.norm(embeddings[i] - query)))[:7]
        assert found["distance"].tolist() == pytest.approx([float(np.linalg.norm(embeddings[i] - query)) for i in expected], abs=1e-5)
        assert set(found["path"]) == set(catalogue.frame["path"].iloc[expected])
        assert set(found["cluster"]) <= set(closest.tolist())


def test_two_levels_look_into_the_nearest_cells_of_the_nearest_clusters_only(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    """The clusters divided into cells: the query is compared with the cells of the closest cluster, then inside the closest cell."""
    clusters = cluster(embeddings, SIX)
    point = SearchParams(kind="two_level_ivf", nprobe=1, coarse_nprobe=1)
    index = Index.build(tmp_path, bundle, catalogue, embeddings, clusters, point)
    structure = build_structure("two_level_ivf", embeddings, clusters)
    cells = np.asarray(faiss.downcast_index(structure.quantizer).reconstruct_n(0, structure.nlist))
    assert len(cells) > len(clusters.centroids)
    above = np.argmax(cells @ clusters.centroids.T, axis=1)
    # Every cluster is looked into when an image is put into its cell: here there are fewer than are compared then.
    cell_of = np.argmax(embeddings @ cells.T, axis=1)
    for query, found in zip(embeddings, index.search(embeddings, len(embeddings) - 1), strict=True):
        inside = np.flatnonzero(above == np.argmax(clusters.centroids @ query))
        cell = inside[np.argmax(cells[inside] @ query)]
        assert sorted(found["path"]) == sorted(catalogue.frame["path"].iloc[np.flatnonzero(cell_of == cell)])


def test_more_neighbors_than_images_are_all_of_them(index: Index, embeddings: np.ndarray) -> None:
    (found,) = index.search(embeddings[:1], 1000)
    assert len(found) == len(embeddings)
    assert found["distance"].is_monotonic_increasing


def test_rows_say_what_each_entry_is(index: Index, catalogue: Catalogue) -> None:
    assert index.rows.columns.tolist() == ROW_COLUMNS
    for column in ("path", "id", "label", "split", "image_row"):
        assert index.rows[column].tolist() == catalogue.frame[column].tolist()


def test_the_index_says_which_model_and_catalogue_it_belongs_to(index: Index, bundle: Bundle, catalogue: Catalogue) -> None:
    assert index.facts["model"] == bundle.weights_hash
    assert index.facts["catalogue"] == {"uri": catalogue.uri, "version": catalogue.version, "fingerprint": catalogue.fingerprint}
    assert index.point == TWO_LISTS
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


@pytest.mark.parametrize("format_number", [0, 2, "3", None])
def test_an_index_of_another_format_is_refused_with_both_numbers(
    copy: Index, format_number: object, embeddings: np.ndarray, bundle: Bundle
) -> None:
    file = copy.folder / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": format_number}))
    for use in (lambda: copy.search(embeddings[:1], 1), lambda: copy.require(bundle)):
        with pytest.raises(ModelError) as error:
            use()
        assert str(error.value) == f"{file}: format {format_number} is not the format 3 that this version reads"


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


def test_a_flipped_bit_in_lances_files_is_noticed_and_the_file_named(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    index = _build(tmp_path / "i", SearchParams(kind="lance", nprobe=6), catalogue, bundle, embeddings)
    root = tmp_path / "i.lance"
    files = sorted(file for part in ("data", "_indices") for file in (root / part).rglob("*") if file.is_file())
    assert sorted(index.facts["table"]["checksums"]) == sorted(str(file.relative_to(root)) for file in files)
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[:9] + bytes([whole[9] ^ 1]) + whole[10:])
        with pytest.raises(ModelError, match=f"{file} is missing or damaged"):
            Index(index.folder).search(embeddings[:1], 1)
        file.write_bytes(whole)
    shutil.rmtree(root / "_versions")
    with pytest.raises(ModelError, match=f"of the embeddings {root} cannot be opened"):
        Index(index.folder).search(embeddings[:1], 1)


def test_a_flipped_bit_in_the_reference_to_the_catalogue_is_noticed(copy: Index, bundle: Bundle) -> None:
    file = copy.folder / "index.json"
    facts = json.loads(file.read_text())
    facts["catalogue"]["version"] ^= 1
    file.write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=f"{file} is damaged: its checksum is not its own"):
        copy.require(bundle)


@pytest.mark.parametrize("point", THOROUGH, ids=str)
def test_a_filter_leaves_the_nearest_of_a_label_and_of_those_below_it(
    point: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, labels = _build(tmp_path, point, catalogue, bundle, embeddings), catalogue.frame["label"]
    for below in (20_000, 0):
        monkeypatch.setattr("deeprank.search.index.EXACT_BELOW", below)
        for label_prefix in (labels[0], labels[0].rsplit("/", 1)[0]):
            wanted = np.flatnonzero((labels == label_prefix) | labels.str.startswith(label_prefix + "/"))
            assert 1 < len(wanted) < len(labels)
            (found,) = index.search(embeddings[-1:], 5, label_prefix=label_prefix)
            distance = np.sort(np.linalg.norm(embeddings[wanted] - embeddings[-1], axis=1))[:5]
            assert found["distance"].tolist() == pytest.approx(distance.tolist(), abs=1e-5)
    assert len(index.search(embeddings[:1], 5, label_prefix=labels[0][:-1])[0]) == 0
    assert len(index.search(embeddings[:1], 5, label_prefix="no/such")[0]) == 0


@pytest.mark.parametrize("point", [SearchParams(kind="ivf_flat", nprobe=1), SearchParams(kind="hnsw", ef_search=5)], ids=str)
def test_a_filter_finds_as_many_as_asked_for_however_far_they_lie(
    point: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeprank.search.index.EXACT_BELOW", 0)
    monkeypatch.setattr("deeprank.search.index.COMPARED", 3)
    index = _build(tmp_path, point, catalogue, bundle, embeddings)
    for label_prefix in catalogue.frame["label"].unique():
        found = index.search(embeddings, 5, label_prefix=label_prefix)
        assert [len(rows) for rows in found] == [5] * len(embeddings)
        assert {label for rows in found for label in rows["label"]} == {label_prefix}
        assert all(rows["distance"].is_monotonic_increasing for rows in found)


def test_a_limit_leaves_what_is_nearer(index: Index, embeddings: np.ndarray) -> None:
    (all_of_them,) = index.search(embeddings[:1], 10)
    limit = all_of_them["distance"][4]
    (found,) = index.search(embeddings[:1], 10, max_distance=limit)
    assert found["path"].tolist() == all_of_them["path"][:5].tolist()


def test_images_are_found_by_their_ids(index: Index, catalogue: Catalogue, embeddings: np.ndarray) -> None:
    places = index.places_of(catalogue.frame["id"].iloc[[7, 2]].tolist())
    assert (index.embeddings(places) == embeddings[[7, 2]]).all()
    with pytest.raises(DataError, match="no image ff00 in this index"):
        index.places_of(["ff00"])


def _table(folder: Path, rows: pd.DataFrame) -> Catalogue:
    """A catalogue of rows without images."""
    table = pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)
    lance.write_dataset(table, str(folder), mode="append" if folder.exists() else "create")
    return Catalogue(str(folder), lance.dataset(str(folder)).version)


def _rows(numbers: np.ndarray, status: str = "ok") -> pd.DataFrame:
    ids = [f"{n:08x}" for n in numbers]
    columns: dict[str, object] = {"path": [f"{i}.jpg" for i in ids], "id": ids, "label": [f"l{n % 7}/m{n % 70}" for n in numbers]}
    columns |= {"size": 1, "mtime_ns": 1, "width": 1, "height": 1, "phash": 1, "group": ids, "split": "train", "status": status}
    return pd.DataFrame(columns | {"reason": "", "image_row": -1, "image": None})


def _change(
    tmp_path: Path, bundle: Bundle, point: SearchParams, count: int, moved: int, embedding_dim: int
) -> tuple[Index, Index, np.ndarray, float]:
    """Return an index of `count` after as many images came and went as `moved`, one built afresh, queries, and seconds."""
    rng = np.random.default_rng(0)
    centers = _unit(rng, 50, embedding_dim)
    vectors = centers[rng.integers(50, size=count + moved)] + 0.5 * _unit(rng, count + moved, embedding_dim)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fifty = ClusterSettings(clusters=50)
    before = _table(tmp_path / "c.lance", _rows(np.arange(count)))
    index = _build(tmp_path / "before", point, before, bundle, vectors[:count], fifty)
    gone = rng.permutation(count)[:moved]
    _table(tmp_path / "c.lance", _rows(gone, "removed"))
    after = _table(tmp_path / "c.lance", _rows(np.arange(count, count + moved)))

    def embedding(rows: np.ndarray) -> np.ndarray:
        return vectors[[int(i, 16) for i in after.frame["id"].iloc[rows]]]

    def embed(rows: np.ndarray) -> np.ndarray:
        if point.kind == "lance":
            _store(str(tmp_path / "before.lance"), after.frame["id"].iloc[rows].tolist(), embedding(rows))
        return embedding(rows)

    start = time.perf_counter()
    changed = Index(index.folder).change(tmp_path / "after", after, embed)
    changed.nearest(vectors[:1], 1)
    seconds = time.perf_counter() - start
    fresh = _build(tmp_path / "fresh", point, after, bundle, embedding(np.arange(len(after.frame))), fifty)
    queries = vectors[rng.permutation(len(vectors))[:500]] + 0.1 * _unit(rng, 500, embedding_dim)
    return changed, fresh, queries / np.linalg.norm(queries, axis=1, keepdims=True), seconds


@pytest.mark.parametrize("point", THOROUGH, ids=str)
def test_what_came_is_found_and_what_is_gone_is_not(point: SearchParams, bundle: Bundle, tmp_path: Path) -> None:
    thorough = point.model_copy(update={"nprobe": 200 if point.nprobe else 0, "coarse_nprobe": 50 if point.coarse_nprobe else 0})
    changed, fresh, queries, _ = _change(tmp_path, bundle, thorough, 2000, 200, 16)
    changed = Index(changed.folder)
    both = list(zip(changed.search(queries, 10), fresh.search(queries, 10), strict=True))
    shared = np.mean([len(set(mine["id"]) & set(anew["id"])) for mine, anew in both])
    # Compressed by another codebook, the candidates are not quite the same.
    assert shared > 9.5 if point.kind == "ivf_pq" else shared == 10
    assert sorted(changed.rows["id"]) == sorted(fresh.rows["id"])
    assert (changed.moved.built_from, changed.moved.added, changed.moved.removed, changed.moved.share) == (2000, 200, 200, 0.2)
    assert changed.moved.farther == pytest.approx(1, abs=0.05)
    assert "20% of the 2,000" in changed.moved.rebuild
    assert fresh.moved.rebuild == ""


@pytest.mark.parametrize("point", [point for point in THOROUGH if point.kind != "lance"], ids=str)
def test_where_images_only_came_all_of_them_are_told_apart(point: SearchParams, bundle: Bundle, tmp_path: Path) -> None:
    vectors = _unit(np.random.default_rng(3), 60, 16)
    half, whole = (_table(tmp_path / f"{step}.lance", _rows(np.arange(0, 60, step))) for step in (2, 1))
    index = _build(tmp_path / "before", point, half, bundle, vectors[::2])
    changed = index.change(tmp_path / "after", whole, lambda rows: vectors[[int(i, 16) for i in whole.frame["id"].iloc[rows]]])
    entries, distances = changed.nearest(vectors, 60)
    assert changed.rows["id"].loc[entries[:, 0]].tolist() == [f"{n:08x}" for n in range(60)]
    assert distances[:, 0] == pytest.approx(0, abs=1e-3)


def test_lances_lists_stay_those_of_the_clusters(bundle: Bundle, tmp_path: Path) -> None:
    changed, _, _, _ = _change(tmp_path, bundle, SearchParams(kind="lance", nprobe=8), 4000, 100, 16)
    table = changed.facts["table"]
    (index,) = lance.dataset(table["uri"], version=table["version"]).describe_indices()
    assert len(index.segments) == 1
    statistics = lance.dataset(table["uri"], version=table["version"]).stats.index_stats(index.name)
    assert statistics["num_unindexed_rows"] == 0
    assert statistics["indices"][0]["num_partitions"] == len(changed.clusters.centroids) == 50


def test_a_image_whose_embedding_is_elsewhere_is_not_taken_for_another(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    index = _build(tmp_path / "i", SearchParams(kind="lance", nprobe=6), catalogue, bundle, embeddings)
    with pytest.raises(ModelError, match="holds no embedding of image ff: build the index anew"):
        LanceIndex.build(index.facts["table"]["uri"], [catalogue.frame["id"][0], "ff"], index.clusters.centroids)


def test_small_clusters_do_not_call_for_a_rebuild_where_the_like_came(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(40, dtype=np.float32), 6, axis=0) + 0.3 * _unit(rng, 240, 40)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.flatnonzero(np.arange(240) % 6 < 3)
    before, after = _table(tmp_path / "a.lance", _rows(known)), _table(tmp_path / "b.lance", _rows(np.arange(240)))
    index = Index.build(tmp_path / "i", bundle, before, vectors[known], cluster(vectors[known], ClusterSettings(clusters=40)), EXACT_SEARCH)
    changed = index.change(tmp_path / "j", after, lambda rows: vectors[[int(i, 16) for i in after.frame["id"].iloc[rows]]])
    assert changed.moved.farther == pytest.approx(1, abs=0.15)


def test_what_lies_far_from_the_clusters_calls_for_a_rebuild(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    near = np.eye(8, dtype=np.float32)[:1] + 0.1 * _unit(rng, 100, 8)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    index = Index.build(
        tmp_path / "i",
        bundle,
        _table(tmp_path / "c.lance", _rows(np.arange(100))),
        near,
        cluster(near, ClusterSettings(clusters=2)),
        TWO_LISTS,
    )
    changed = index.change(tmp_path / "j", _table(tmp_path / "c.lance", _rows(np.arange(100, 105))), lambda rows: _unit(rng, len(rows), 8))
    assert changed.moved.share == 0.05
    assert "times as far from the clusters" in changed.moved.rebuild


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        EXACT_SEARCH,
        SearchParams(kind="ivf_flat", nprobe=8),
        SearchParams(kind="two_level_ivf", nprobe=300, coarse_nprobe=50),
        pytest.param(
            SearchParams(kind="hnsw", ef_search=64),
            marks=pytest.mark.xfail(reason="takes 2.1 s, and one graph of these heaps finds a point more or less than another"),
        ),
        SearchParams(kind="ivf_pq", nprobe=24, rerank=64),
        SearchParams(kind="lance", nprobe=8),
    ],
    ids=str,
)
def test_a_thousand_came_and_went_of_a_hundred_thousand(point: SearchParams, bundle: Bundle, tmp_path: Path) -> None:
    changed, fresh, queries, seconds = _change(tmp_path, bundle, point, 100_000, 1000, 128)
    everything = np.asarray(fresh.embeddings(np.arange(len(fresh.rows))))
    truth = exact(everything, queries, 10)
    farthest = np.linalg.norm(everything[truth[:, -1]] - queries, axis=1)[:, None] + 1e-6
    recalls = [float((index.nearest(queries, 10)[1] <= farthest).mean()) for index in (changed, fresh)]
    print(f"{point}: {seconds:.2f} s, recall@10 {recalls[0]:.4f}, afresh {recalls[1]:.4f}")
    assert seconds < 2
    assert recalls[0] > recalls[1] - 0.005
    if point.kind == "exact":
        assert [a["id"].tolist() for a in changed.search(queries, 10)] == [b["id"].tolist() for b in fresh.search(queries, 10)]


def test_building_clusters_chooses_and_reports(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    clusters = cluster_catalogue(catalogue, bundle, SIX, record)
    index = build_index(tmp_path / "i", catalogue, bundle, clusters, IndexSettings(), record)
    reported = {point.name: point.value for point in record.points}
    assert reported["clusters.count"] == 6
    assert 0 < reported["clusters.purity"] <= 1
    assert -1 <= reported["clusters.ami"] <= 1
    assert reported["index.recall_at_10"] == 1
    assert record.notes["index.kind"] == "exact"
    assert "comparing with all 48 takes" in record.notes["index.reason"]
    assert {"cluster_montage", "index_choice"} <= set(record.figures)
    assert {file.name for file in record.attached} == {"clusters.html", "index_choice.csv"}
    assert index.search(embeddings[5:6], 1)[0]["path"].tolist() == [catalogue.frame["path"][5]]
    assert (Clusters.load(tmp_path / "i").assigned == index.rows["cluster"]).all()

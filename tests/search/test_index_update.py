"""An updated index returns the added images and not the removed ones, and says when to build again."""

import time
from pathlib import Path

import lance
import numpy as np
import pytest

from deeprank.models.bundle import Bundle
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.faiss_index import exact_neighbors
from deeprank.search.index import Index
from deeprank.search.index_build import write_index
from deeprank.search.index_update import update_index
from deeprank.search.search_params import EXACT_SEARCH, SearchParams
from tests.search.builders import THOROUGH, TWO_LISTS, append_embeddings, append_events, image_events, unit_vectors, write_test_index


def _update(
    tmp_path: Path, bundle: Bundle, search_params: SearchParams, count: int, churn: int, embedding_dim: int
) -> tuple[Index, Index, np.ndarray, float]:
    """Return an index of `count` images after `churn` were added and removed, one built again, queries, and seconds."""
    rng = np.random.default_rng(0)
    centers = unit_vectors(rng, 50, embedding_dim)
    vectors = centers[rng.integers(50, size=count + churn)] + 0.5 * unit_vectors(rng, count + churn, embedding_dim)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fifty_clusters = ClusterSettings(n_clusters=50)
    before = append_events(tmp_path / "c.lance", image_events(np.arange(count)))
    index = write_test_index(tmp_path / "before", search_params, before, bundle, vectors[:count], fifty_clusters)
    append_events(tmp_path / "c.lance", image_events(rng.permutation(count)[:churn], "removed"))
    after = append_events(tmp_path / "c.lance", image_events(np.arange(count, count + churn)))

    def embeddings_of(rows: np.ndarray) -> np.ndarray:
        return vectors[[int(id, 16) for id in after.frame["id"].iloc[rows]]]

    def embed(rows: np.ndarray) -> np.ndarray:
        if search_params.kind == "lance":
            append_embeddings(str(tmp_path / "before.lance"), after.frame["id"].iloc[rows].tolist(), embeddings_of(rows))
        return embeddings_of(rows)

    start = time.perf_counter()
    updated = update_index(Index(index.folder), tmp_path / "after", after, embed)
    updated.search_entries(vectors[:1], 1)
    seconds = time.perf_counter() - start
    rebuilt = write_test_index(
        tmp_path / "rebuilt", search_params, after, bundle, embeddings_of(np.arange(len(after.frame))), fifty_clusters
    )
    queries = vectors[rng.permutation(len(vectors))[:500]] + 0.1 * unit_vectors(rng, 500, embedding_dim)
    return updated, rebuilt, queries / np.linalg.norm(queries, axis=1, keepdims=True), seconds


@pytest.mark.parametrize("search_params", THOROUGH, ids=str)
def test_added_images_are_found_and_removed_ones_are_not(search_params: SearchParams, bundle: Bundle, tmp_path: Path) -> None:
    more_lists = {"nprobe": 200 if search_params.nprobe else 0, "coarse_nprobe": 50 if search_params.coarse_nprobe else 0}
    updated, rebuilt, queries, _ = _update(tmp_path, bundle, search_params.model_copy(update=more_lists), 2000, 200, 16)
    updated = Index(updated.folder)
    results = list(zip(updated.search(queries, 10), rebuilt.search(queries, 10), strict=True))
    shared = np.mean([len(set(after["id"]) & set(again["id"])) for after, again in results])
    # The codebooks of ivf_pq differ, and so may some candidates.
    assert shared > 9.5 if search_params.kind == "ivf_pq" else shared == 10
    assert sorted(updated.rows["id"]) == sorted(rebuilt.rows["id"])
    churn = updated.churn
    assert (churn.built_from, churn.added, churn.removed, churn.share) == (2000, 200, 200, 0.2)
    assert churn.centroid_drift == pytest.approx(1, abs=0.05)
    assert "20% of the 2,000" in churn.rebuild_reason
    assert rebuilt.churn.rebuild_reason == ""


@pytest.mark.parametrize("search_params", [params for params in THOROUGH if params.kind != "lance"], ids=str)
def test_only_added_images_keep_all_ids_distinct(search_params: SearchParams, bundle: Bundle, tmp_path: Path) -> None:
    vectors = unit_vectors(np.random.default_rng(3), 60, 16)
    half, full = (append_events(tmp_path / f"{step}.lance", image_events(np.arange(0, 60, step))) for step in (2, 1))
    index = write_test_index(tmp_path / "before", search_params, half, bundle, vectors[::2])
    updated = update_index(index, tmp_path / "after", full, lambda rows: vectors[[int(id, 16) for id in full.frame["id"].iloc[rows]]])
    entries, distances = updated.search_entries(vectors, 60)
    assert updated.rows["id"].loc[entries[:, 0]].tolist() == [f"{n:08x}" for n in range(60)]
    assert distances[:, 0] == pytest.approx(0, abs=1e-3)


def test_lists_of_lance_stay_those_of_the_clusters(bundle: Bundle, tmp_path: Path) -> None:
    updated, _, _, _ = _update(tmp_path, bundle, SearchParams(kind="lance", nprobe=8), 4000, 100, 16)
    table = updated.manifest["table"]
    dataset = lance.dataset(table["uri"], version=table["version"])
    (index,) = dataset.describe_indices()
    assert len(index.segments) == 1
    statistics = dataset.stats.index_stats(index.name)
    assert statistics["num_unindexed_rows"] == 0
    assert statistics["indices"][0]["num_partitions"] == len(updated.clusters.centroids) == 50


def test_small_clusters_need_no_rebuild_for_similar_images(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(40, dtype=np.float32), 6, axis=0) + 0.3 * unit_vectors(rng, 240, 40)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    indexed = np.flatnonzero(np.arange(240) % 6 < 3)
    before = append_events(tmp_path / "a.lance", image_events(indexed))
    after = append_events(tmp_path / "b.lance", image_events(np.arange(240)))
    clusters = cluster_embeddings(vectors[indexed], ClusterSettings(n_clusters=40))
    index = write_index(tmp_path / "i", bundle, before, vectors[indexed], clusters, EXACT_SEARCH)
    updated = update_index(index, tmp_path / "j", after, lambda rows: vectors[[int(id, 16) for id in after.frame["id"].iloc[rows]]])
    assert updated.churn.centroid_drift == pytest.approx(1, abs=0.15)


def test_images_far_from_their_centroids_need_a_rebuild(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = np.eye(8, dtype=np.float32)[:1] + 0.1 * unit_vectors(rng, 100, 8)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    before = append_events(tmp_path / "c.lance", image_events(np.arange(100)))
    clusters = cluster_embeddings(vectors, ClusterSettings(n_clusters=2))
    index = write_index(tmp_path / "i", bundle, before, vectors, clusters, TWO_LISTS)
    after = append_events(tmp_path / "c.lance", image_events(np.arange(100, 105)))
    updated = update_index(index, tmp_path / "j", after, lambda rows: unit_vectors(rng, len(rows), 8))
    assert updated.churn.share == 0.05
    assert "times as far from their centroids" in updated.churn.rebuild_reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "search_params",
    [
        EXACT_SEARCH,
        SearchParams(kind="ivf_flat", nprobe=8),
        SearchParams(kind="two_level_ivf", nprobe=300, coarse_nprobe=50),
        pytest.param(
            SearchParams(kind="hnsw", ef_search=64),
            marks=pytest.mark.xfail(reason="takes 2.1 s, and the recall of two graphs of these vectors differs by about a point"),
        ),
        SearchParams(kind="ivf_pq", nprobe=24, rerank=64),
        SearchParams(kind="lance", nprobe=8),
    ],
    ids=str,
)
def test_churn_of_1000_in_100000_takes_less_than_2_seconds(search_params: SearchParams, bundle: Bundle, tmp_path: Path) -> None:
    updated, rebuilt, queries, seconds = _update(tmp_path, bundle, search_params, 100_000, 1000, 128)
    vectors = np.asarray(rebuilt.embeddings(np.arange(len(rebuilt.rows))))
    truth = exact_neighbors(vectors, queries, 10)
    max_distances = np.linalg.norm(vectors[truth[:, -1]] - queries, axis=1)[:, None] + 1e-6
    recalls = [float((index.search_entries(queries, 10)[1] <= max_distances).mean()) for index in (updated, rebuilt)]
    print(f"{search_params}: {seconds:.2f} s, recall@10 {recalls[0]:.4f}, rebuilt {recalls[1]:.4f}")
    assert seconds < 2
    assert recalls[0] > recalls[1] - 0.005
    if search_params.kind == "exact":
        results = zip(updated.search(queries, 10), rebuilt.search(queries, 10), strict=True)
        assert all(after["id"].tolist() == again["id"].tolist() for after, again in results)

"""Retrieval metrics against sorting the whole gallery for each query and counting."""

import numpy as np
import pytest

from deeprank.evaluation.metrics import QUERY_CHUNK, RANKS, query_table, triplet_correct


def unit(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _by_hand(query: np.ndarray, code: int, gallery: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    order = sorted(range(len(gallery)), key=lambda i: float(np.linalg.norm(gallery[i] - query)))
    hits = [codes[i] == code for i in order]
    r = int((codes == code).sum())
    if r == 0:
        return dict.fromkeys([*(f"recall_at_{k}" for k in RANKS), "map_at_r"], float("nan"))
    precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]]
    return {f"recall_at_{k}": float(any(hits[:k])) for k in RANKS} | {"map_at_r": sum(precisions) / r}


@pytest.mark.parametrize(
    ("gallery_size", "classes"),
    [(60, 5), (60, 30), (60, 2), (7, 3), (1, 1), (200, 1)],
    ids=["usual", "small", "large", "few", "one", "all"],
)
@pytest.mark.parametrize("seed", range(3))
def test_each_query_finds_what_sorting_the_gallery_finds(gallery_size: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = unit(25, seed=seed), unit(gallery_size, seed=seed + 100)
    query_codes, codes = rng.integers(0, classes + 1, 25), rng.integers(0, classes, gallery_size)
    found = query_table(queries, query_codes, gallery, codes)
    expected = [_by_hand(query, code, gallery, codes) for query, code in zip(queries, query_codes, strict=True)]
    assert found.columns.tolist() == list(expected[0])
    for name in found:
        assert np.allclose(found[name], [row[name] for row in expected], equal_nan=True), name


def test_more_queries_than_a_chunk_stay_in_order() -> None:
    queries, gallery = unit(2 * QUERY_CHUNK + 3), unit(40, seed=1)
    codes = np.arange(40) % 4
    classes = np.random.default_rng(0).integers(0, 4, len(queries))
    whole = query_table(queries, classes, gallery, codes)
    for i in (0, QUERY_CHUNK - 1, QUERY_CHUNK, 2 * QUERY_CHUNK + 2):
        assert whole.iloc[i].to_dict() == pytest.approx(_by_hand(queries[i], classes[i], gallery, codes))


def test_a_class_that_the_gallery_lacks_is_no_number_and_spoils_no_other() -> None:
    found = query_table(unit(2), np.array([9, 0]), unit(5, seed=1), np.zeros(5, dtype=np.int64))
    assert found.iloc[0].isna().all()
    assert found.iloc[1].tolist() == [1, 1, 1, 1]


def test_a_perfect_ranking_scores_1_and_the_worst_0() -> None:
    gallery = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    best = query_table(gallery[:1], np.array([0]), gallery, np.array([0, 0, 1, 1]))
    worst = query_table(gallery[:1], np.array([1]), gallery, np.array([0, 0, 1, 1]))
    assert best.iloc[0].tolist() == [1, 1, 1, 1]
    assert worst.iloc[0].tolist() == [0, 1, 1, 0]


def test_a_triplet_is_correct_where_the_positive_is_nearer() -> None:
    embeddings = unit(12)
    triplets = np.random.default_rng(0).integers(0, 12, (200, 3))
    triplets = triplets[triplets[:, 1] != triplets[:, 2]]
    by_hand = [np.linalg.norm(embeddings[q] - embeddings[p]) < np.linalg.norm(embeddings[q] - embeddings[n]) for q, p, n in triplets]
    assert triplet_correct(embeddings, triplets).tolist() == by_hand


def test_equal_distances_are_not_correct() -> None:
    same = np.repeat(unit(1), 3, axis=0)
    assert triplet_correct(same, np.array([[0, 1, 2]])).tolist() == [0.0]

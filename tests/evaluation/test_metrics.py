"""Retrieval metrics against a brute-force computation and against other libraries."""

import numpy as np
import pandas as pd
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import ndcg_score

from deeprank.evaluation import metrics
from deeprank.evaluation.metrics import RECALL_RANKS, query_table, score_at_top, triplet_correct
from deeprank.triplets.relevance import RelevanceWeights, relevance

WEIGHTS = RelevanceWeights()
LEVEL_METRICS = [*(f"recall_at_{k}" for k in RECALL_RANKS), "map_at_r"]


def unit_vectors(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def random_codes(n: int, classes: int, depth: int = 3, seed: int = 0) -> np.ndarray:
    """Return the codes of random classes; two classes share a parent, four a grandparent and so on."""
    leaf = np.random.default_rng(seed).integers(0, classes, n)
    return np.stack([leaf // 2**d for d in range(depth)][::-1], axis=1)


def _expected_metrics(query: np.ndarray, code: int, gallery: np.ndarray, gallery_codes: np.ndarray) -> dict[str, float]:
    order = sorted(range(len(gallery)), key=lambda i: float(np.linalg.norm(gallery[i] - query)))
    hits = [gallery_codes[i] == code for i in order]
    r = int((gallery_codes == code).sum())
    if r == 0:
        return dict.fromkeys(LEVEL_METRICS, float("nan"))
    precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]]
    return {f"recall_at_{k}": float(any(hits[:k])) for k in RECALL_RANKS} | {"map_at_r": sum(precisions) / r}


def _expected_ndcg(query: np.ndarray, code: np.ndarray, gallery: np.ndarray, gallery_codes: np.ndarray, weights: RelevanceWeights) -> float:
    all_codes = np.concatenate([gallery_codes, [code]])
    relevances = relevance(all_codes, np.arange(len(gallery_codes)), np.full(len(gallery_codes), len(gallery_codes)), weights)
    order = np.argsort([np.linalg.norm(image - query) for image in gallery])
    gain, ideal_gain = (
        sum(float(g) / np.log2(i + 2) for i, g in enumerate(gains[:10])) for gains in (relevances[order], sorted(relevances, reverse=True))
    )
    return gain / ideal_gain if ideal_gain else float("nan")


@pytest.mark.parametrize(
    ("gallery_size", "classes", "depth"),
    [(60, 5, 3), (60, 30, 3), (60, 2, 2), (7, 3, 4), (1, 1, 2), (200, 1, 2), (60, 8, 1)],
    ids=["usual", "small", "large", "few", "one", "all", "flat"],
)
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_sorting_the_whole_gallery(gallery_size: int, classes: int, depth: int, seed: int) -> None:
    queries, gallery = unit_vectors(25, seed=seed), unit_vectors(gallery_size, seed=seed + 100)
    query_codes, gallery_codes = random_codes(25, classes + 1, depth, seed), random_codes(gallery_size, classes, depth, seed + 100)
    result = query_table(queries, query_codes, gallery, gallery_codes, WEIGHTS)
    assert result.columns.tolist() == [f"{level}.{name}" for level in ("fine", "coarse") for name in LEVEL_METRICS] + ["ndcg_at_10"]
    for level, column in {"fine": depth - 1, "coarse": max(depth - 2, 0)}.items():
        expected = [
            _expected_metrics(query, code, gallery, gallery_codes[:, column])
            for query, code in zip(queries, query_codes[:, column], strict=True)
        ]
        for name in LEVEL_METRICS:
            assert np.allclose(result[f"{level}.{name}"], [row[name] for row in expected], equal_nan=True), (level, name)
    ndcg = [_expected_ndcg(query, code, gallery, gallery_codes, WEIGHTS) for query, code in zip(queries, query_codes, strict=True)]
    assert np.allclose(result["ndcg_at_10"], ndcg, equal_nan=True)


@pytest.mark.parametrize("gallery_size", [2, 7, 60])
def test_a_query_in_the_gallery_is_no_result(gallery_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_CHUNK_BYTES", 5000)
    gallery, gallery_codes = unit_vectors(gallery_size), random_codes(gallery_size, 4)
    queries, query_codes = np.concatenate([gallery, unit_vectors(5, seed=1)]), np.concatenate([gallery_codes, random_codes(5, 4, seed=1)])
    # One query has a label of its own in the gallery: a file that is in two classes.
    query_codes[0] = 99
    own = np.concatenate([np.arange(gallery_size), np.full(5, -1)])
    result = query_table(queries, query_codes, gallery, gallery_codes, WEIGHTS, own)
    for number, position in enumerate(own):
        others = np.arange(gallery_size) != position
        expected = query_table(queries[[number]], query_codes[[number]], gallery[others], gallery_codes[others], WEIGHTS)
        assert np.allclose(result.iloc[[number]], expected, equal_nan=True)


def test_metrics_equal_those_of_pytorch_metric_learning() -> None:
    queries, gallery = unit_vectors(300, 8), unit_vectors(2000, 8, seed=1)
    query_codes, gallery_codes = random_codes(300, 40), random_codes(2000, 40, seed=1)
    result = query_table(queries, query_codes, gallery, gallery_codes, WEIGHTS).mean()
    names = ("precision_at_1", "mean_average_precision_at_r")
    # k is the number of neighbors searched: the size of the largest class, so that R neighbors are available.
    calculator = AccuracyCalculator(include=names, k="max_bin_count")
    for level, column in {"fine": 2, "coarse": 1}.items():
        expected = calculator.get_accuracy(queries, query_codes[:, column], gallery, gallery_codes[:, column])
        assert result[f"{level}.recall_at_1"] == pytest.approx(expected["precision_at_1"])
        assert result[f"{level}.map_at_r"] == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-6)


@pytest.mark.parametrize("weights", [WEIGHTS, RelevanceWeights(leaf=1, parent=0.2, top=0.7), RelevanceWeights(leaf=3, parent=0, top=0)])
def test_ndcg_equals_that_of_scikit_learn(weights: RelevanceWeights) -> None:
    queries, gallery = unit_vectors(40), unit_vectors(120, seed=1)
    query_codes, gallery_codes = random_codes(40, 20), random_codes(120, 20, seed=1)
    all_codes = np.concatenate([gallery_codes, query_codes])
    relevances = np.stack([relevance(all_codes, np.arange(120), np.full(120, 120 + q), weights) for q in range(40)])
    expected = [ndcg_score(row[None], (query @ gallery.T)[None], k=10) for row, query in zip(relevances, queries, strict=True)]
    result = query_table(queries, query_codes, gallery, gallery_codes, weights)["ndcg_at_10"]
    assert np.allclose(result, np.where(relevances.any(axis=1), expected, np.nan), equal_nan=True)


@pytest.mark.parametrize("memory", [1, 30_000, 200_000])
def test_results_are_bit_identical_for_any_chunk_size(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each image three times, so that there are ties at every rank.
    queries, gallery = unit_vectors(150, 32), np.tile(unit_vectors(70, 32, seed=1), (3, 1))
    query_codes, gallery_codes = random_codes(150, 12), random_codes(210, 12, seed=1)
    triplets = np.random.default_rng(2).integers(0, 210, (300, 3))
    expected_table = query_table(queries, query_codes, gallery, gallery_codes, WEIGHTS)
    expected_score = score_at_top(gallery, gallery, triplets, np.arange(210))
    monkeypatch.setattr(metrics, "MAX_CHUNK_BYTES", memory)
    monkeypatch.setattr(metrics, "GALLERY_CHUNK_SIZE", 64)
    monkeypatch.setattr(metrics, "TRIPLET_CHUNK_SIZE", 7)
    pd.testing.assert_frame_equal(query_table(queries, query_codes, gallery, gallery_codes, WEIGHTS), expected_table, check_exact=True)
    assert np.array_equal(score_at_top(gallery, gallery, triplets, np.arange(210)), expected_score, equal_nan=True)


def test_ties_rank_in_the_order_of_the_gallery() -> None:
    same = np.repeat(unit_vectors(1, 7), 3, axis=0)
    for first in range(3):
        gallery_codes = np.full((3, 1), 1)
        gallery_codes[first] = 0
        result = query_table(same[:1], np.array([[0]]), same, gallery_codes, WEIGHTS)
        assert result["fine.recall_at_1"][0] == (first == 0)


def test_chunks_stay_within_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    ranking_keys = metrics._ranking_keys
    monkeypatch.setattr(metrics, "_ranking_keys", lambda *sides: sizes.append(ranking_keys(*sides).nbytes) or ranking_keys(*sides))
    monkeypatch.setattr(metrics, "MAX_CHUNK_BYTES", 100_000)
    query_table(unit_vectors(100), random_codes(100, 9), unit_vectors(500, seed=1), random_codes(500, 9), WEIGHTS)
    assert len(sizes) > 3
    assert max(sizes) <= 100_000


def test_a_class_absent_from_the_gallery_has_nan() -> None:
    result = query_table(unit_vectors(2), np.array([[9], [0]]), unit_vectors(5, seed=1), np.zeros((5, 1), dtype=np.int64), WEIGHTS)
    assert result.iloc[0].isna().all()
    assert result.iloc[1].tolist() == [1] * 9


def test_a_class_with_only_siblings_has_coarse_metrics_and_ndcg() -> None:
    result = query_table(unit_vectors(1), np.array([[0, 1]]), unit_vectors(20, seed=1), np.zeros((20, 2), dtype=np.int64), WEIGHTS).iloc[0]
    assert result[[f"fine.{name}" for name in LEVEL_METRICS]].isna().all()
    assert result[[f"coarse.{name}" for name in LEVEL_METRICS]].tolist() == [1, 1, 1, 1]
    assert result["ndcg_at_10"] == pytest.approx(1)


def test_the_best_ranking_scores_1_and_the_worst_0() -> None:
    gallery = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    gallery_codes = np.array([[0], [0], [1], [1]])
    best, worst = (query_table(gallery[:1], np.array([[code]]), gallery, gallery_codes, WEIGHTS) for code in (0, 1))
    assert best.iloc[0, :4].tolist() == [1, 1, 1, 1]
    assert worst.iloc[0, :4].tolist() == [0, 1, 1, 0]


def test_a_triplet_is_correct_if_the_positive_is_nearer() -> None:
    embeddings = unit_vectors(12)
    triplets = np.random.default_rng(0).integers(0, 12, (200, 3))
    triplets = triplets[triplets[:, 1] != triplets[:, 2]]
    expected = [np.linalg.norm(embeddings[q] - embeddings[p]) < np.linalg.norm(embeddings[q] - embeddings[n]) for q, p, n in triplets]
    assert triplet_correct(embeddings, embeddings, triplets).tolist() == expected


def test_equal_distances_are_not_correct() -> None:
    same = np.repeat(unit_vectors(1), 3, axis=0)
    assert triplet_correct(same, same, np.array([[0, 1, 2]])).tolist() == [0.0]


@pytest.mark.parametrize("images", [20, 31, 45, 90], ids=["few", "30 others", "more", "many"])
def test_the_score_counts_triplets_among_the_30_nearest(images: int) -> None:
    embeddings, rng = unit_vectors(120, seed=3), np.random.default_rng(4)
    ranked_rows = rng.permutation(120)[:images]
    triplets = np.array([rng.choice(ranked_rows, 3, replace=False) for _ in range(400)])
    expected = []
    for q, p, n in triplets:
        others = sorted((row for row in ranked_rows if row != q), key=lambda row: float(np.linalg.norm(embeddings[row] - embeddings[q])))
        correct = others.index(p) < others.index(n)
        expected.append((1 if correct else -1) if min(others.index(p), others.index(n)) < 30 else np.nan)
    result = score_at_top(embeddings, embeddings, triplets, ranked_rows)
    assert np.array_equal(result, expected, equal_nan=True)
    assert np.isnan(result).any() == (images > 31)


def test_without_triplets_the_results_are_empty() -> None:
    none = np.empty((0, 3), dtype=np.int64)
    assert not len(score_at_top(unit_vectors(5), unit_vectors(5), none, np.arange(5)))
    assert not len(triplet_correct(unit_vectors(5), unit_vectors(5), none))

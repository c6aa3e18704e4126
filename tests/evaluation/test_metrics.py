"""Retrieval metrics against sorting the whole gallery for each query and counting, and against well-known libraries."""

import numpy as np
import pandas as pd
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import ndcg_score

from deeprank.evaluation import metrics
from deeprank.evaluation.metrics import RANKS, query_table, top_score, triplet_correct
from deeprank.triplets.relevance import RelevanceWeights, relevance

WEIGHTS = RelevanceWeights()
OF_A_LEVEL = [*(f"recall_at_{k}" for k in RANKS), "map_at_r"]


def unit(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def paths(n: int, classes: int, depth: int = 3, seed: int = 0) -> np.ndarray:
    """Codes of random classes, two of which share a parent, four a grandparent and so on."""
    leaf = np.random.default_rng(seed).integers(0, classes, n)
    return np.stack([leaf // 2**d for d in range(depth)][::-1], axis=1)


def _by_hand(query: np.ndarray, code: int, gallery: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    order = sorted(range(len(gallery)), key=lambda i: float(np.linalg.norm(gallery[i] - query)))
    hits = [codes[i] == code for i in order]
    r = int((codes == code).sum())
    if r == 0:
        return dict.fromkeys(OF_A_LEVEL, float("nan"))
    precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]]
    return {f"recall_at_{k}": float(any(hits[:k])) for k in RANKS} | {"map_at_r": sum(precisions) / r}


def _graded(query: np.ndarray, code: np.ndarray, gallery: np.ndarray, codes: np.ndarray, weights: RelevanceWeights) -> float:
    both = np.concatenate([codes, [code]])
    relevances = relevance(both, np.arange(len(codes)), np.full(len(codes), len(codes)), weights)
    order = np.argsort([np.linalg.norm(one - query) for one in gallery])
    gain, best = (
        sum(float(g) / np.log2(i + 2) for i, g in enumerate(gains[:10])) for gains in (relevances[order], sorted(relevances, reverse=True))
    )
    return gain / best if best else float("nan")


@pytest.mark.parametrize(
    ("gallery_size", "classes", "depth"),
    [(60, 5, 3), (60, 30, 3), (60, 2, 2), (7, 3, 4), (1, 1, 2), (200, 1, 2), (60, 8, 1)],
    ids=["usual", "small", "large", "few", "one", "all", "flat"],
)
@pytest.mark.parametrize("seed", range(3))
def test_each_query_finds_what_sorting_the_gallery_finds(gallery_size: int, classes: int, depth: int, seed: int) -> None:
    queries, gallery = unit(25, seed=seed), unit(gallery_size, seed=seed + 100)
    asked, codes = paths(25, classes + 1, depth, seed), paths(gallery_size, classes, depth, seed + 100)
    found = query_table(queries, asked, gallery, codes, WEIGHTS)
    assert found.columns.tolist() == [f"{level}.{name}" for level in ("fine", "coarse") for name in OF_A_LEVEL] + ["ndcg_at_10"]
    for level, column in {"fine": depth - 1, "coarse": max(depth - 2, 0)}.items():
        expected = [_by_hand(query, code, gallery, codes[:, column]) for query, code in zip(queries, asked[:, column], strict=True)]
        for name in OF_A_LEVEL:
            assert np.allclose(found[f"{level}.{name}"], [row[name] for row in expected], equal_nan=True), (level, name)
    gains = [_graded(query, code, gallery, codes, WEIGHTS) for query, code in zip(queries, asked, strict=True)]
    assert np.allclose(found["ndcg_at_10"], gains, equal_nan=True)


def test_recall_and_precision_are_those_of_pytorch_metric_learning() -> None:
    queries, gallery = unit(300, 8), unit(2000, 8, seed=1)
    asked, codes = paths(300, 40), paths(2000, 40, seed=1)
    found = query_table(queries, asked, gallery, codes, WEIGHTS).mean()
    names = ("precision_at_1", "mean_average_precision_at_r")
    # Its k is the depth of the search: the largest class, so that R fits.
    peer = AccuracyCalculator(include=names, k="max_bin_count")
    for level, column in {"fine": 2, "coarse": 1}.items():
        theirs = peer.get_accuracy(queries, asked[:, column], gallery, codes[:, column])
        assert found[f"{level}.recall_at_1"] == pytest.approx(theirs["precision_at_1"])
        assert found[f"{level}.map_at_r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)


@pytest.mark.parametrize("weights", [WEIGHTS, RelevanceWeights(leaf=1, parent=0.2, top=0.7), RelevanceWeights(leaf=3, parent=0, top=0)])
def test_graded_gain_is_that_of_scikit_learn(weights: RelevanceWeights) -> None:
    queries, gallery = unit(40), unit(120, seed=1)
    asked, codes = paths(40, 20), paths(120, 20, seed=1)
    both = np.concatenate([codes, asked])
    relevances = np.stack([relevance(both, np.arange(120), np.full(120, 120 + q), weights) for q in range(40)])
    theirs = [ndcg_score(one[None], (query @ gallery.T)[None], k=10) for one, query in zip(relevances, queries, strict=True)]
    found = query_table(queries, asked, gallery, codes, weights)["ndcg_at_10"]
    assert np.allclose(found, np.where(relevances.any(axis=1), theirs, np.nan), equal_nan=True)


@pytest.mark.parametrize("memory", [1, 30_000, 200_000])
def test_results_are_the_same_to_the_last_bit_in_any_chunks(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Thrice each image, so that there are ties at every rank.
    queries, gallery = unit(150, 32), np.tile(unit(70, 32, seed=1), (3, 1))
    asked, codes = paths(150, 12), paths(210, 12, seed=1)
    triplets = np.random.default_rng(2).integers(0, 210, (300, 3))
    whole = query_table(queries, asked, gallery, codes, WEIGHTS)
    near = top_score(gallery, triplets, np.arange(210))
    monkeypatch.setattr(metrics, "MEMORY", memory)
    monkeypatch.setattr(metrics, "GALLERY_CHUNK", 64)
    monkeypatch.setattr(metrics, "TRIPLET_CHUNK", 7)
    pd.testing.assert_frame_equal(query_table(queries, asked, gallery, codes, WEIGHTS), whole, check_exact=True)
    assert np.array_equal(top_score(gallery, triplets, np.arange(210)), near, equal_nan=True)


def test_of_equally_near_images_the_gallerys_first_ranks_first() -> None:
    same = np.repeat(unit(1, 7), 3, axis=0)
    for first in range(3):
        codes = np.full((3, 1), 1)
        codes[first] = 0
        found = query_table(same[:1], np.array([[0]]), same, codes, WEIGHTS)
        assert found["fine.recall_at_1"][0] == (first == 0)


def test_chunks_take_no_more_than_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    keys = metrics._keys
    monkeypatch.setattr(metrics, "_keys", lambda *both: sizes.append(keys(*both).nbytes) or keys(*both))
    monkeypatch.setattr(metrics, "MEMORY", 100_000)
    query_table(unit(100), paths(100, 9), unit(500, seed=1), paths(500, 9), WEIGHTS)
    assert len(sizes) > 3
    assert max(sizes) <= 100_000


def test_a_class_that_the_gallery_lacks_is_no_number_and_spoils_no_other() -> None:
    found = query_table(unit(2), np.array([[9], [0]]), unit(5, seed=1), np.zeros((5, 1), dtype=np.int64), WEIGHTS)
    assert found.iloc[0].isna().all()
    assert found.iloc[1].tolist() == [1] * 9


def test_a_class_whose_siblings_alone_are_in_the_gallery_has_coarse_metrics_and_graded_gain() -> None:
    found = query_table(unit(1), np.array([[0, 1]]), unit(20, seed=1), np.zeros((20, 2), dtype=np.int64), WEIGHTS).iloc[0]
    assert found[[f"fine.{name}" for name in OF_A_LEVEL]].isna().all()
    assert found[[f"coarse.{name}" for name in OF_A_LEVEL]].tolist() == [1, 1, 1, 1]
    assert found["ndcg_at_10"] == pytest.approx(1)


def test_a_perfect_ranking_scores_1_and_the_worst_0() -> None:
    gallery = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    codes = np.array([[0], [0], [1], [1]])
    best, worst = (query_table(gallery[:1], np.array([[code]]), gallery, codes, WEIGHTS) for code in (0, 1))
    assert best.iloc[0, :4].tolist() == [1, 1, 1, 1]
    assert worst.iloc[0, :4].tolist() == [0, 1, 1, 0]


def test_a_triplet_is_correct_where_the_positive_is_nearer() -> None:
    embeddings = unit(12)
    triplets = np.random.default_rng(0).integers(0, 12, (200, 3))
    triplets = triplets[triplets[:, 1] != triplets[:, 2]]
    by_hand = [np.linalg.norm(embeddings[q] - embeddings[p]) < np.linalg.norm(embeddings[q] - embeddings[n]) for q, p, n in triplets]
    assert triplet_correct(embeddings, triplets).tolist() == by_hand


def test_equal_distances_are_not_correct() -> None:
    same = np.repeat(unit(1), 3, axis=0)
    assert triplet_correct(same, np.array([[0, 1, 2]])).tolist() == [0.0]


@pytest.mark.parametrize("images", [20, 31, 45, 90], ids=["few", "30 others", "more", "many"])
def test_the_score_counts_triplets_among_the_thirty_nearest(images: int) -> None:
    embeddings, rng = unit(120, seed=3), np.random.default_rng(4)
    among = rng.permutation(120)[:images]
    triplets = np.array([rng.choice(among, 3, replace=False) for _ in range(400)])
    expected = []
    for q, p, n in triplets:
        others = sorted((row for row in among if row != q), key=lambda row: float(np.linalg.norm(embeddings[row] - embeddings[q])))
        right = others.index(p) < others.index(n)
        expected.append((1 if right else -1) if min(others.index(p), others.index(n)) < 30 else np.nan)
    found = top_score(embeddings, triplets, among)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.isnan(found).any() == (images > 31)


def test_no_triplets_have_no_score() -> None:
    none = np.empty((0, 3), dtype=np.int64)
    assert not len(top_score(unit(5), none, np.arange(5)))
    assert not len(triplet_correct(unit(5), none))

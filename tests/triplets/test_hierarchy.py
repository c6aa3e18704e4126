"""Blocks and rings against sets made by loops; sets of positives against all sets there are."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from deeprank.triplets.hierarchy import HierarchyBlocks, choose, draw_graded, graded_pairs
from deeprank.triplets.relevance import encode_hierarchy

LABELS = ["b/x/1", "a/x/1", "a/x/1", "a/x/2", "a/y/1", "b/x/1", "c", "a/x/1", "c", "d/x", "a/y/1"]


@pytest.mark.parametrize("labels", [LABELS, ["b", "a", "b", "c"], ["a"], ["a/b"] * 3], ids=["deep", "flat", "one", "one class"])
def test_a_ring_holds_each_image_that_shares_so_many_folders_once(labels: list[str]) -> None:
    codes = encode_hierarchy(labels)
    rings = HierarchyBlocks(codes)
    # How many folders two images share; an image shares one more with itself.
    shared = (codes[:, None] == codes).sum(axis=2) + np.eye(len(labels), dtype=int)
    for position, row in enumerate(rings.order):
        at = np.array([position])
        for outer, inner in itertools.combinations(range(rings.depth + 2), 2):
            expected = np.flatnonzero((shared[row] >= outer) & (shared[row] < inner))
            assert rings.count(at, outer, inner).tolist() == [len(expected)]
            members = rings.member(np.full(len(expected), position), outer, inner, np.arange(len(expected)))
            assert sorted(rings.order[members]) == expected.tolist()
        assert rings.sizes(at)[0].tolist() == [(shared[row] == number).sum() for number in range(rings.depth + 1)]


def test_the_order_is_that_of_the_codes_and_classes_begin_where_they_change() -> None:
    codes = encode_hierarchy(LABELS)
    rings = HierarchyBlocks(codes)
    assert codes[rings.order].tolist() == sorted(codes.tolist())
    assert [LABELS[row] for row in rings.order[rings.leaves]] == ["a/x/1", "a/x/2", "a/y/1", "b/x/1", "c", "d/x"]


def test_a_member_of_each_ring_is_drawn_equally_often() -> None:
    rings, rng = HierarchyBlocks(encode_hierarchy(LABELS)), np.random.default_rng(0)
    for shared in range(4):
        at = np.full(20_000, 1)
        size = int(rings.count(at[:1], shared, shared + 1)[0])
        times = Counter(rings.draw(at, shared, shared + 1, rng).tolist())
        assert len(times) == size
        assert chisquare(list(times.values())).pvalue > 0.001 or size == 1


def test_no_images_have_no_rings() -> None:
    rings = HierarchyBlocks(encode_hierarchy([]))
    assert len(rings.order) == len(rings.leaves) == 0
    assert rings.sizes(np.arange(0)).shape == (0, 2)


@pytest.mark.parametrize(("size", "wanted"), [(6, 3), (5, 1), (5, 4), (4, 6), (3, 7)])
def test_every_set_is_chosen_equally_often(size: int, wanted: int) -> None:
    # Sizes of others beside it must not matter.
    sizes = np.tile([size, 2, 9], 20_000)
    chosen = choose(sizes, wanted, np.random.default_rng(1))[::3]
    whole, rest = divmod(wanted, size)
    assert (np.sort(chosen[:, : whole * size], axis=1) == np.sort(np.tile(np.arange(size), whole))).all()
    sets = Counter(map(tuple, np.sort(chosen[:, whole * size :], axis=1).tolist()))
    assert set(sets) == set(itertools.combinations(range(size), rest))
    assert chisquare(list(sets.values())).pvalue > 0.001


def test_each_is_chosen_as_often_as_another_or_once_more() -> None:
    sizes = np.arange(1, 30)
    for wanted in (1, 2, 10, 29, 40):
        for size, chosen in zip(sizes, choose(sizes, wanted, np.random.default_rng(0)), strict=True):
            times = np.bincount(chosen, minlength=size)
            assert len(times) == size
            assert times.max() - times.min() <= 1


def test_choosing_for_nobody_gives_nothing() -> None:
    assert choose(np.empty(0, dtype=np.int64), 3, np.random.default_rng(0)).shape == (0, 3)


def test_pairs_are_those_that_trials_under_the_margin_leave() -> None:
    weights, grades, rng = np.array([[5.0, 3.0, 0.0, 2.0]]), np.array([0, 0.25, 0.5, 1]), np.random.default_rng(0)
    share = weights[0, 1:] / weights[0, 1:].sum()
    times = np.zeros((4, 4))
    while times.sum() < 5000:
        positive = rng.choice([1, 2, 3], p=share)
        negative = rng.choice([1, 2, 3], p=share) if rng.random() < 0.6 else 0
        times[positive, negative] += grades[positive] - grades[negative] >= 0.25
    expected = graded_pairs(weights, grades, 0.6, 0.25)[0]
    assert ((times > 0) == (expected > 0)).all()
    assert chisquare(times[expected > 0], 5000 * expected[expected > 0]).pvalue > 0.001


def test_a_margin_that_rounding_would_miss_is_kept() -> None:
    assert 0.3 - 0.2 < 0.1
    assert graded_pairs(np.array([[0.0, 1.0, 1.0]]), np.array([0, 0.2, 0.3]), 1, 0.1)[0, 2, 1] == 1


def test_a_class_without_a_pair_is_never_the_querys() -> None:
    rings = HierarchyBlocks(encode_hierarchy(["a", "a", "b", "c", "c", "c"]))
    pairs = graded_pairs(rings.sizes(rings.leaves).astype(float), np.array([0.0, 1.0]), 0, 0.5)
    query, positive, negative = draw_graded(rings, pairs, np.ones(3), 20_000, np.random.default_rng(0))
    assert chisquare(np.bincount(query, minlength=6)[[0, 1, 3, 4, 5]]).pvalue > 0.001
    assert set(query.tolist()) == {0, 1, 3, 4, 5}
    assert (positive == 1).all()
    assert (negative == 0).all()
    assert [len(drawn) for drawn in draw_graded(rings, pairs * 0, np.ones(3), 9, np.random.default_rng(0))] == [0, 0, 0]

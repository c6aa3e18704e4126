"""Blocks of the hierarchy against sets made by loops; samples without replacement against all possible sets."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from deeprank.triplets.hierarchy import HierarchyBlocks, draw_queries, pair_probabilities, sample_without_replacement
from deeprank.triplets.relevance import encode_hierarchy

LABELS = ["b/x/1", "a/x/1", "a/x/1", "a/x/2", "a/y/1", "b/x/1", "c", "a/x/1", "c", "d/x", "a/y/1"]


@pytest.mark.parametrize("labels", [LABELS, ["b", "a", "b", "c"], ["a"], ["a/b"] * 3], ids=["deep", "flat", "one", "one class"])
def test_counts_and_members_are_those_of_a_loop(labels: list[str]) -> None:
    codes = encode_hierarchy(labels)
    blocks = HierarchyBlocks(codes)
    # The number of folders that two images share; an image shares one more with itself.
    shared = (codes[:, None] == codes).sum(axis=2) + np.eye(len(labels), dtype=int)
    for position, row in enumerate(blocks.order):
        positions = np.array([position])
        for outer, inner in itertools.combinations(range(blocks.depth + 2), 2):
            expected = np.flatnonzero((shared[row] >= outer) & (shared[row] < inner))
            assert blocks.count(positions, outer, inner).tolist() == [len(expected)]
            members = blocks.select(np.full(len(expected), position), outer, inner, np.arange(len(expected)))
            assert sorted(blocks.order[members]) == expected.tolist()
        assert blocks.count_by_depth(positions)[0].tolist() == [(shared[row] == number).sum() for number in range(blocks.depth + 1)]


def test_positions_are_sorted_by_class_codes() -> None:
    codes = encode_hierarchy(LABELS)
    blocks = HierarchyBlocks(codes)
    assert codes[blocks.order].tolist() == sorted(codes.tolist())
    assert [LABELS[row] for row in blocks.order[blocks.class_starts]] == ["a/x/1", "a/x/2", "a/y/1", "b/x/1", "c", "d/x"]


def test_each_image_of_a_depth_is_drawn_equally_often() -> None:
    blocks, rng = HierarchyBlocks(encode_hierarchy(LABELS)), np.random.default_rng(0)
    for shared in range(4):
        positions = np.full(20_000, 1)
        size = int(blocks.count(positions[:1], shared, shared + 1)[0])
        times = Counter(blocks.draw(positions, shared, shared + 1, rng).tolist())
        assert len(times) == size
        assert chisquare(list(times.values())).pvalue > 0.001 or size == 1


def test_without_images_there_are_no_blocks() -> None:
    blocks = HierarchyBlocks(encode_hierarchy([]))
    assert len(blocks.order) == len(blocks.class_starts) == 0
    assert blocks.count_by_depth(np.arange(0)).shape == (0, 2)


@pytest.mark.parametrize(("size", "count"), [(6, 3), (5, 1), (5, 4), (4, 6), (3, 7)])
def test_every_set_is_sampled_equally_often(size: int, count: int) -> None:
    # The other sizes must not change the result.
    sizes = np.tile([size, 2, 9], 20_000)
    samples = sample_without_replacement(sizes, count, np.random.default_rng(1))[::3]
    repeats, rest = divmod(count, size)
    assert (np.sort(samples[:, : repeats * size], axis=1) == np.sort(np.tile(np.arange(size), repeats))).all()
    sets = Counter(map(tuple, np.sort(samples[:, repeats * size :], axis=1).tolist()))
    assert set(sets) == set(itertools.combinations(range(size), rest))
    assert chisquare(list(sets.values())).pvalue > 0.001


def test_numbers_are_sampled_equally_often_or_once_more() -> None:
    sizes = np.arange(1, 30)
    for count in (1, 2, 10, 29, 40):
        for size, sample in zip(sizes, sample_without_replacement(sizes, count, np.random.default_rng(0)), strict=True):
            times = np.bincount(sample, minlength=size)
            assert len(times) == size
            assert times.max() - times.min() <= 1


def test_without_sizes_nothing_is_sampled() -> None:
    assert sample_without_replacement(np.empty(0, dtype=np.int64), 3, np.random.default_rng(0)).shape == (0, 3)


def test_pair_probabilities_are_those_of_repeated_trials() -> None:
    weights, table, rng = np.array([[5.0, 3.0, 0.0, 2.0]]), np.array([0, 0.25, 0.5, 1]), np.random.default_rng(0)
    share = weights[0, 1:] / weights[0, 1:].sum()
    times = np.zeros((4, 4))
    while times.sum() < 5000:
        positive = rng.choice([1, 2, 3], p=share)
        negative = rng.choice([1, 2, 3], p=share) if rng.random() < 0.6 else 0
        times[positive, negative] += table[positive] - table[negative] >= 0.25
    expected = pair_probabilities(weights, table, 0.6, 0.25)[0]
    assert ((times > 0) == (expected > 0)).all()
    assert chisquare(times[expected > 0], 5000 * expected[expected > 0]).pvalue > 0.001


def test_a_rounding_error_does_not_violate_the_margin() -> None:
    assert 0.3 - 0.2 < 0.1
    assert pair_probabilities(np.array([[0.0, 1.0, 1.0]]), np.array([0, 0.2, 0.3]), 1, 0.1)[0, 2, 1] == 1


def test_a_class_without_a_pair_has_no_query() -> None:
    blocks = HierarchyBlocks(encode_hierarchy(["a", "a", "b", "c", "c", "c"]))
    probabilities = pair_probabilities(blocks.count_by_depth(blocks.class_starts).astype(float), np.array([0.0, 1.0]), 0, 0.5)
    query, positive, negative = draw_queries(blocks, probabilities, np.ones(3), 20_000, np.random.default_rng(0))
    assert chisquare(np.bincount(query, minlength=6)[[0, 1, 3, 4, 5]]).pvalue > 0.001
    assert set(query.tolist()) == {0, 1, 3, 4, 5}
    assert (positive == 1).all()
    assert (negative == 0).all()
    assert [len(drawn) for drawn in draw_queries(blocks, probabilities * 0, np.ones(3), 9, np.random.default_rng(0))] == [0, 0, 0]

"""The buffers against a reservoir that is fed one image at a time, and their triplets against repeated trials."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from deeprank.triplets.buffer import BufferSampler
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy, relevance, relevance_by_depth

LABELS = ["a/x/1"] * 4 + ["a/x/2"] * 2 + ["a/y/1"] * 3 + ["b/x/1"] * 5 + ["b/y/1"] * 2 + ["c/x/1"]
TABLE = relevance_by_depth(3, RelevanceWeights())


def sampler_of(labels: list[str], size: int, share: float = 0.5, relevance_margin: float = 0.1) -> BufferSampler:
    return BufferSampler(encode_hierarchy(labels), TABLE, size, share, relevance_margin)


def relevances(labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the relevance of each pair, 0 of an image to itself, and the total of each image over its category."""
    n, codes = len(labels), encode_hierarchy(labels)
    pairs = relevance(codes, *np.divmod(np.arange(n * n), n), RelevanceWeights()).reshape(n, n).astype(float)
    np.fill_diagonal(pairs, 0)
    return pairs, pairs.sum(axis=1)


def feed_one_by_one(rows: list[int], uniform: list[float], size: int) -> dict[str, set[int]]:
    """Return the buffers of the paper's reservoir: a larger key replaces the smallest key of a full buffer."""
    total = relevances(LABELS)[1]
    buffers: dict[str, dict[int, float]] = {}
    for row, u in zip(rows, uniform, strict=True):
        buffer = buffers.setdefault(LABELS[row][0], {})
        key = u ** (1 / total[row]) if total[row] else 0
        smallest = min(buffer, key=buffer.__getitem__, default=-1)
        if row in buffer:
            buffer[row] = max(key, buffer[row])
        elif len(buffer) < size:
            buffer[row] = key
        elif key > buffer[smallest]:
            del buffer[smallest]
            buffer[row] = key
    return {category: set(buffer) for category, buffer in buffers.items()}


@pytest.mark.parametrize("size", [2, 3, 6, 100])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_buffers_are_those_of_a_reservoir_fed_one_by_one(size: int, chunk: int) -> None:
    for seed in range(20):
        stream = np.random.default_rng(seed).integers(0, len(LABELS), 60)
        sampler, rng = sampler_of(LABELS, size), np.random.default_rng(100 + seed)
        for first in range(0, len(stream), chunk):
            sampler.feed(stream[first : first + chunk], rng)
        buffers = {category: {row for row in sampler.rows.tolist() if LABELS[row][0] == category} for category in "abc"}
        assert buffers == feed_one_by_one(stream.tolist(), np.random.default_rng(100 + seed).random(60).tolist(), size)
        assert len(sampler.rows) == len(set(sampler.rows.tolist()))


def test_total_relevance_is_the_sum_over_the_category() -> None:
    assert sampler_of(LABELS, 2).total_relevance == pytest.approx(relevances(LABELS)[1])


def test_buffers_are_weighted_samples_without_replacement() -> None:
    labels = ["a/x/1"] * 3 + ["a/x/2"] * 2 + ["a/y/1"]
    weights = relevances(labels)[1]
    expected: Counter[frozenset[int]] = Counter()
    for order in itertools.permutations(range(len(labels)), 3):
        remaining = [weights.sum() - weights[list(order[:step])].sum() for step in range(3)]
        expected[frozenset(order)] += math.prod(weights[row] / rest for row, rest in zip(order, remaining, strict=True))
    rng, times = np.random.default_rng(0), Counter()
    sampler = sampler_of(labels, 3)
    for _ in range(5000):
        sampler.rows, sampler.keys = sampler.rows[:0], sampler.keys[:0]
        sampler.feed(np.arange(len(labels)), rng)
        times[frozenset(sampler.rows.tolist())] += 1
    assert chisquare([times[rows] for rows in expected], [5000 * share for share in expected.values()]).pvalue > 0.001


def test_buffers_do_not_grow_with_the_number_of_images_fed() -> None:
    labels, rng = [f"{i % 5}/{i % 3}/{i % 2}" for i in range(5000)], np.random.default_rng(0)
    sampler = sampler_of(labels, 20)
    for _ in range(50):
        sampler.feed(rng.integers(0, 5000, 1000), rng)
        assert len(sampler.rows) == len(sampler.keys) == 5 * 20
        assert sampler.rows.base is None
        assert sampler.keys.base is None


@pytest.mark.parametrize(("share", "relevance_margin"), [(0.5, 0.1), (0.9, 0.5)])
def test_triplets_are_as_frequent_as_by_repeated_trials(share: float, relevance_margin: float) -> None:
    pairs, total = relevances(LABELS)
    sampler, rng = sampler_of(LABELS, 4, share, relevance_margin), np.random.default_rng(3)
    sampler.feed(np.arange(len(LABELS)), rng)
    buffered = sampler.rows.tolist()

    def accepted(query: int) -> int:
        while True:
            other = int(rng.choice([row for row in buffered if row != query and LABELS[row][0] == LABELS[query][0]]))
            if rng.random() < min(1, pairs[query, other] / total[other]):
                return other

    expected: Counter[tuple[int, int, int]] = Counter()
    for query in rng.choice([row for row in buffered if LABELS[row][0] != "c"], 1500).tolist():
        while True:
            positive = accepted(query)
            outside = [row for row in buffered if LABELS[row][0] != LABELS[query][0]]
            negative = accepted(query) if rng.random() < share else int(rng.choice(outside))
            if pairs[query, positive] - pairs[query, negative] >= relevance_margin:
                break
        expected[query, positive, negative] += 1
    drawn = Counter(map(tuple, sampler.draw(100_000, rng).tolist()))
    assert set(expected) <= set(drawn)
    by_pair = [Counter(), Counter()]
    for counter, totals in zip((expected, drawn), by_pair, strict=True):
        for (query, positive, negative), times in counter.items():
            totals[query, positive, LABELS[negative]] += times
    assert chi2_contingency([[counter[key] for key in by_pair[1]] for counter in by_pair]).pvalue > 0.001


def test_images_of_relevance_0_in_the_category_are_not_drawn() -> None:
    table = relevance_by_depth(3, RelevanceWeights(top=0))
    sampler, rng = BufferSampler(encode_hierarchy(LABELS), table, 100, 0.5, 0.1), np.random.default_rng(0)
    sampler.feed(np.arange(len(LABELS)), rng)
    drawn = sampler.draw(5000, rng)
    shared = (sampler.codes[drawn[:, :1]] == sampler.codes[drawn[:, 1:]]).sum(axis=2)
    assert set(shared[:, 0].tolist()) == {2, 3}
    assert set(shared[:, 1].tolist()) == {0, 2}


def test_buffers_without_a_triplet_give_none() -> None:
    sampler, rng = sampler_of(LABELS, 5), np.random.default_rng(0)
    assert sampler.draw(3, rng).shape == (0, 3)
    sampler.feed(np.array([0, 9]), rng)
    assert sampler.draw(3, rng).shape == (0, 3)
    sampler.feed(np.array([1]), rng)
    assert sampler.draw(3, rng).shape == (3, 3)

"""Bootstrap intervals contain the mean, have the right width, and draw whole groups."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from deeprank.evaluation.intervals import Estimate, binomial_interval, estimate


def test_the_value_is_the_mean_inside_its_interval() -> None:
    values = np.random.default_rng(0).random(50)
    result = estimate(values, np.arange(50))
    assert result.value == pytest.approx(values.mean())
    assert result.low < result.value < result.high
    assert result.count == 50


def test_independent_values_have_the_normal_interval() -> None:
    values = (np.random.default_rng(1).random(900) < 0.8).astype(float)
    result = estimate(values, np.arange(900))
    half = 1.96 * values.std() / math.sqrt(900)
    assert result.low == pytest.approx(result.value - half, abs=0.004)
    assert result.high == pytest.approx(result.value + half, abs=0.004)


def test_the_values_of_a_group_count_as_one() -> None:
    singles = np.random.default_rng(2).random(100)
    single = estimate(singles, np.arange(100))
    copied = estimate(np.repeat(singles, 9), np.repeat(np.arange(100) * 7, 9))
    ungrouped = estimate(np.repeat(singles, 9), np.arange(900))
    assert copied.value == pytest.approx(single.value)
    assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.1)
    assert ungrouped.high - ungrouped.low < 0.5 * (single.high - single.low)


def test_a_group_has_the_weight_of_its_values() -> None:
    result = estimate(np.array([1.0, 1, 1, 0]), np.array([0, 0, 0, 1]))
    assert (result.value, result.low, result.high) == (0.75, 0, 1)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, groups = np.random.default_rng(3).random(30), np.arange(30)
    assert estimate(values, groups, seed=1) == estimate(values, groups, seed=1) != estimate(values, groups, seed=2)


def test_equal_proportions_have_a_binomial_interval() -> None:
    groups = np.array([0, 0, 1, 1, 2, 3])
    zeros, ones = (estimate(np.full(6, value), groups, is_proportion=True) for value in (0.0, 1.0))
    assert (ones.value, ones.high) == (1, 1)
    assert (zeros.value, zeros.low, zeros.high) == (0, 0, pytest.approx(1 - ones.low))
    assert estimate(np.zeros(6), groups) == Estimate(0, 0, 0, 6)
    assert ones.low == pytest.approx(binomial_interval(4, 4, 0.025)[0])
    assert 0.4 < ones.low < 0.6


def test_the_interval_of_one_group_has_no_width() -> None:
    assert estimate(np.array([0.0, 1.0]), np.array([5, 5])) == Estimate(0.5, 0.5, 0.5, 2)


def test_nan_values_are_excluded() -> None:
    values, groups = np.array([1.0, np.nan, 0.0, np.nan]), np.array([0, 0, 1, 2])
    assert estimate(values, groups) == estimate(np.array([1.0, 0.0]), np.array([0, 1]))


@pytest.mark.parametrize("values", [[], [float("nan")]])
def test_without_values_the_mean_is_nan(values: list[float]) -> None:
    result = estimate(np.array(values), np.arange(len(values)))
    assert result.count == 0
    assert all(math.isnan(number) for number in (result.value, result.low, result.high))


def test_lower_confidence_narrows_and_noise_widens() -> None:
    values, groups = np.random.default_rng(4).random(400), np.arange(400)
    plain, narrow, noisy = estimate(values, groups), estimate(values, groups, confidence=0.5), estimate(values, groups, noise_std=0.05)
    assert plain.low < narrow.low < narrow.high < plain.high
    deviation = math.sqrt(values.var() / 400 + 0.05**2)
    assert noisy.high - noisy.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


@pytest.mark.parametrize(("n", "size"), [(100, 1), (1000, 1), (1000, 4)])
def test_95_percent_of_intervals_contain_the_true_gain(n: int, size: int) -> None:
    rng, hits, cases = np.random.default_rng(5), 0, 300
    groups = np.arange(n) // size
    for _ in range(cases):
        # Near-duplicates gain or lose together: 9 % gain, 5 % lose.
        differences = np.repeat(rng.choice([1.0, -1.0, 0.0], n // size, p=[0.09, 0.05, 0.86]), size)
        result = estimate(differences, groups)
        hits += result.low <= 0.04 <= result.high
    assert 0.92 <= hits / cases <= 0.98


def test_the_ends_of_the_binomial_interval_have_mid_p_0_025() -> None:
    for successes, trials in ((0, 1), (7, 7), (3, 9), (40, 60)):
        low, high = binomial_interval(successes, trials, 0.025)
        for end, sign in ((low, 1), (high, -1)):
            at_least = binom.cdf(successes, trials, end) if sign < 0 else binom.sf(successes - 1, trials, end)
            if 0 < end < 1:
                assert at_least - 0.5 * binom.pmf(successes, trials, end) == pytest.approx(0.025, abs=1e-6)
    assert binomial_interval(0, 1, 0.025)[0] == 0
    assert binomial_interval(7, 7, 0.025)[1] == 1

"""Bootstrap intervals: the mean, as wide as it should be, whole groups at a time."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from deeprank.evaluation.intervals import Estimate, estimate, share_interval


def test_the_value_is_the_mean_and_lies_in_its_interval() -> None:
    values = np.random.default_rng(0).random(50)
    found = estimate(values, np.arange(50))
    assert found.value == pytest.approx(values.mean())
    assert found.low < found.value < found.high
    assert found.count == 50


def test_for_independent_values_it_is_the_textbook_interval() -> None:
    values = (np.random.default_rng(1).random(900) < 0.8).astype(float)
    found = estimate(values, np.arange(900))
    half = 1.96 * values.std() / math.sqrt(900)
    assert found.low == pytest.approx(found.value - half, abs=0.004)
    assert found.high == pytest.approx(found.value + half, abs=0.004)


def test_values_that_belong_together_count_as_one() -> None:
    singles = np.random.default_rng(2).random(100)
    alone = estimate(singles, np.arange(100))
    copied = estimate(np.repeat(singles, 9), np.repeat(np.arange(100) * 7, 9))
    ignorant = estimate(np.repeat(singles, 9), np.arange(900))
    assert copied.value == pytest.approx(alone.value)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert ignorant.high - ignorant.low < 0.5 * (alone.high - alone.low)


def test_groups_of_different_sizes_weigh_by_their_values() -> None:
    found = estimate(np.array([1.0, 1, 1, 0]), np.array([0, 0, 0, 1]))
    assert (found.value, found.low, found.high) == (0.75, 0, 1)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, groups = np.random.default_rng(3).random(30), np.arange(30)
    assert estimate(values, groups, seed=1) == estimate(values, groups, seed=1) != estimate(values, groups, seed=2)


def test_of_a_few_that_are_all_right_the_lower_end_is_that_of_a_share() -> None:
    groups = np.array([0, 0, 1, 1, 2, 3])
    none, found = (estimate(np.full(6, value), groups, share=True) for value in (0.0, 1.0))
    assert (found.value, found.high) == (1, 1)
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(1 - found.low))
    assert estimate(np.zeros(6), groups) == Estimate(0, 0, 0, 6)
    assert found.low == pytest.approx(share_interval(4, 4, 0.025)[0])
    assert 0.4 < found.low < 0.6


def test_one_group_has_no_width() -> None:
    assert estimate(np.array([0.0, 1.0]), np.array([5, 5])) == Estimate(0.5, 0.5, 0.5, 2)


def test_what_is_no_number_is_left_out() -> None:
    values, groups = np.array([1.0, np.nan, 0.0, np.nan]), np.array([0, 0, 1, 2])
    assert estimate(values, groups) == estimate(np.array([1.0, 0.0]), np.array([0, 1]))


@pytest.mark.parametrize("values", [[], [float("nan")]])
def test_of_nothing_there_is_no_mean(values: list[float]) -> None:
    found = estimate(np.array(values), np.arange(len(values)))
    assert found.count == 0
    assert all(math.isnan(number) for number in (found.value, found.low, found.high))


def test_a_lower_level_is_narrower_and_noise_is_wider() -> None:
    values, groups = np.random.default_rng(4).random(400), np.arange(400)
    plain, narrow, noisy = estimate(values, groups), estimate(values, groups, level=0.5), estimate(values, groups, noise=0.05)
    assert plain.low < narrow.low < narrow.high < plain.high
    deviation = math.sqrt(values.var() / 400 + 0.05**2)
    assert noisy.high - noisy.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


@pytest.mark.parametrize(("n", "size"), [(100, 1), (1000, 1), (1000, 4)])
def test_19_of_20_intervals_hold_the_true_gain(n: int, size: int) -> None:
    rng, held, cases = np.random.default_rng(5), 0, 300
    groups = np.arange(n) // size
    for _ in range(cases):
        # Of near-duplicates, all gain or lose alike: 9 % gain, 5 % lose.
        differences = np.repeat(rng.choice([1.0, -1.0, 0.0], n // size, p=[0.09, 0.05, 0.86]), size)
        found = estimate(differences, groups)
        held += found.low <= 0.04 <= found.high
    assert 0.92 <= held / cases <= 0.98


def test_a_share_outside_the_interval_is_one_that_the_mid_p_test_refuses() -> None:
    for successes, trials in ((0, 1), (7, 7), (3, 9), (40, 60)):
        low, high = share_interval(successes, trials, 0.025)
        for end, sign in ((low, 1), (high, -1)):
            at_least = binom.cdf(successes, trials, end) if sign < 0 else binom.sf(successes - 1, trials, end)
            if 0 < end < 1:
                assert at_least - 0.5 * binom.pmf(successes, trials, end) == pytest.approx(0.025, abs=1e-6)
    assert share_interval(0, 1, 0.025)[0] == 0
    assert share_interval(7, 7, 0.025)[1] == 1

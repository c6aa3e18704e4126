"""Bootstrap intervals: the mean, as wide as it should be, whole groups at a time."""

import math

import numpy as np
import pytest

from deeprank.evaluation.intervals import Estimate, estimate


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

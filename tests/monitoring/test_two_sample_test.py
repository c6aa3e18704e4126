"""The two-sample test rejects as often as its p-value says, and detects a shift."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import kstest

from deeprank.monitoring.two_sample_test import two_sample_test
from tests.monitoring.points import normal_points

PERMUTATIONS = 99


def _squared_mmd_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    points = np.concatenate([x, y]).astype(np.float64)
    squared = [((a - b) ** 2).sum() for i, a in enumerate(points) for b in points[:i]]

    def mean(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(np.mean([np.exp(-((a - b) ** 2).sum() / (2 * np.median(squared))) for a, b in pairs]))

    within = [mean((a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) for s in (x.astype(float), y.astype(float))]
    return sum(within) - 2 * mean((a, b) for a in x.astype(float) for b in y.astype(float))


def test_statistic_is_the_unbiased_estimate_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = normal_points(rng, 12), normal_points(rng, 9, 0.4)
    assert two_sample_test(x, y)[0] == pytest.approx(_squared_mmd_by_loops(x, y), abs=1e-9)
    assert two_sample_test(y, x)[0] == pytest.approx(_squared_mmd_by_loops(x, y), abs=1e-9)


def test_p_is_uniform_where_both_samples_have_one_distribution() -> None:
    rng = np.random.default_rng(1)
    p_values = [two_sample_test(normal_points(rng, 30), normal_points(rng, 15), seed, PERMUTATIONS)[1] for seed in range(400)]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.07
    assert 0.1 <= np.mean(np.array(p_values) <= 0.2) <= 0.3
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_larger_shift_gives_a_larger_statistic() -> None:
    rng = np.random.default_rng(2)
    x = normal_points(rng, 60)
    results = [two_sample_test(x, normal_points(rng, 40, shift), 0, PERMUTATIONS) for shift in (0.5, 1.0, 2.0)]
    assert [p for _, p in results] == [1 / (1 + PERMUTATIONS)] * 3
    assert results[0][0] < results[1][0] < results[2][0]


def test_change_of_variance_alone_is_significant() -> None:
    rng = np.random.default_rng(3)
    assert two_sample_test(normal_points(rng, 60), 2 * normal_points(rng, 60), 0, PERMUTATIONS)[1] == 1 / (1 + PERMUTATIONS)


def test_equal_points_have_p_1() -> None:
    assert two_sample_test(np.ones((9, 3)), np.ones((8, 3)), 0, PERMUTATIONS) == (pytest.approx(0, abs=1e-12), 1.0)


def test_permutations_in_blocks_and_samples_of_many_points() -> None:
    rng = np.random.default_rng(4)
    assert two_sample_test(normal_points(rng, 20), normal_points(rng, 20, 3.0), 0, 1234)[1] == pytest.approx(1 / 1235)
    assert two_sample_test(normal_points(rng, 1500), normal_points(rng, 20, 3.0), 0, PERMUTATIONS)[1] == 1 / (1 + PERMUTATIONS)


def test_same_seed_gives_the_same_p() -> None:
    rng = np.random.default_rng(5)
    x, y = normal_points(rng, 30), normal_points(rng, 30, 0.2)
    assert two_sample_test(x, y, 1) == two_sample_test(x, y, 1)
    assert len({two_sample_test(x, y, seed)[1] for seed in range(5)}) > 1

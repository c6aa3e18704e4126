"""Confidence intervals by bootstrap, whole near-duplicate groups at a time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and how many values it is the mean of."""

    value: float
    low: float
    high: float
    count: int


def estimate(values: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], seed: int = 0) -> Estimate:
    """Return the mean of values with a percentile bootstrap interval; NaN values are left out.

    Args:
        values: (n,) one a query or triplet.
        groups: (n,) which values belong together and are drawn together.
        seed: of the resampling.

    """
    keep = ~np.isnan(values)
    values, groups = values[keep], groups[keep]
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    _, codes = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), len(values))

"""Confidence intervals by cluster bootstrap over near-duplicate groups."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import bdtrc

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Attributes:
        value: the mean; NaN where there are no values.
        low, high: ends of the interval, 95 % unless `estimate` was called with another confidence.
        count: number of values.

    """

    value: float
    low: float
    high: float
    count: int


def estimate(
    values: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int64],
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    noise_std: float = 0.0,
    is_proportion: bool = False,
) -> Estimate:
    """Return the mean of values with a percentile bootstrap interval; NaN values are excluded.

    Args:
        values: (n,) one per query or triplet; paired differences of two models give the interval of the gain.
        groups: (n,) group of each value; the bootstrap draws whole groups.
        seed: of the resampling.
        confidence: of the interval, 0 to 1; both tails are equal.
        resamples: number of bootstrap samples.
        noise_std: standard deviation of a further source of error, added to each bootstrap mean as a normal deviate.
        is_proportion: the values lie from 0 to 1. Where all are 0 or all are 1, all bootstrap samples are equal; the
            binomial interval over the groups is returned instead.

    Source: Field and Welsh 2007, "Bootstrapping clustered data": the cluster bootstrap.

    """
    is_number = ~np.isnan(values)
    values, groups = values[is_number], groups[is_number]
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    _, codes = np.unique(groups, return_inverse=True)
    # Groups of the same sum and size are interchangeable: it is enough to draw how often each kind of group occurs.
    kinds, counts = np.unique(np.stack([np.bincount(codes, weights=values), np.bincount(codes)]), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    means = (draws @ kinds[0]) / (draws @ kinds[1]) + rng.normal(0, noise_std, resamples)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    if is_proportion and values.min() == values.max() and values[0] in (0, 1):
        low, high = binomial_interval(int(values[0] * counts.sum()), int(counts.sum()), (1 - confidence) / 2)
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def binomial_interval(successes: int, trials: int, tail: float) -> tuple[float, float]:
    """Return the mid-p confidence interval of a binomial proportion.

    Args:
        successes: number of successes.
        trials: number of trials, at least one.
        tail: probability of each tail, e.g. 0.025 for a 95 % interval.

    Source: Berry and Armitage 1995, "Mid-P confidence intervals: a brief review".

    """

    def mid_p_excess(proportion: float, probability: float) -> float:
        mid_p: float = (bdtrc(successes - 1, trials, proportion) + bdtrc(successes, trials, proportion)) / 2
        return mid_p - probability

    low = brentq(mid_p_excess, 0, 1, args=(tail,)) if successes else 0.0
    high = brentq(mid_p_excess, 0, 1, args=(1 - tail,)) if successes < trials else 1.0
    return float(low), float(high)

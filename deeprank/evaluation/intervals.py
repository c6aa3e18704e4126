"""Confidence intervals by bootstrap, whole near-duplicate groups at a time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import bdtrc

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval (95 % unless asked otherwise), and how many values it is the mean of."""

    value: float
    low: float
    high: float
    count: int


def estimate(
    values: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int64],
    seed: int = 0,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    noise: float = 0.0,
    share: bool = False,
) -> Estimate:
    """Return the mean of values with a percentile bootstrap interval; NaN values are left out.

    Args:
        values: (n,) one a query or triplet; differences of two models' values make it a paired interval of the gain.
        groups: (n,) which values belong together and are drawn together.
        seed: of the resampling.
        level: of the interval; the same share is left out on either side.
        resamples: how often the groups are drawn.
        noise: standard deviation of what else moves the mean, added to each drawn one as a normal deviate.
        share: the values lie from 0 to 1. Where all are 0, or all are 1, no two draws differ; what so few groups leave open, the
            interval of a binomial share of them says.

    Source: Field and Welsh 2007, "Bootstrapping clustered data": the cluster bootstrap.

    """
    keep = ~np.isnan(values)
    values, groups = values[keep], groups[keep]
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    _, codes = np.unique(groups, return_inverse=True)
    # Groups of the same sum and size are the same to a mean: how often each kind is drawn is all that matters.
    kinds, counts = np.unique(np.stack([np.bincount(codes, weights=values), np.bincount(codes)]), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    means = (drawn @ kinds[0]) / (drawn @ kinds[1]) + rng.normal(0, noise, resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    if share and values.min() == values.max() and values[0] in (0, 1):
        low, high = share_interval(int(values[0] * counts.sum()), int(counts.sum()), (1 - level) / 2)
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def share_interval(successes: int, trials: int, tail: float) -> tuple[float, float]:
    """Return the mid-p interval of a binomial share: beyond either end lie the shares that a test at level `tail` refuses.

    Args:
        successes: of the trials.
        trials: at least one.
        tail: level on either side.

    Source: Berry and Armitage 1995, "Mid-P confidence intervals: a brief review".

    """

    def beyond(share: float, probability: float) -> float:
        more: float = (bdtrc(successes - 1, trials, share) + bdtrc(successes, trials, share)) / 2
        return more - probability

    low = brentq(beyond, 0, 1, args=(tail,)) if successes else 0.0
    high = brentq(beyond, 0, 1, args=(1 - tail,)) if successes < trials else 1.0
    return float(low), float(high)

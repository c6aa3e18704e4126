"""The two-sample test: whether two samples of embeddings come from one distribution."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics.pairwise import euclidean_distances

MAX_SAMPLE = 1000
NUM_PERMUTATIONS = 500
# Permutations held in memory at once.
PERMUTATION_BLOCK = 500
# Statistics that differ by less are equal up to rounding.
ROUNDING = 1e-12

Points: TypeAlias = npt.NDArray[np.floating]
Labels: TypeAlias = Sequence[str] | npt.NDArray[np.object_]


def two_sample_test(
    x: Points, y: Points, seed: int = 0, permutations: int = NUM_PERMUTATIONS, labels: tuple[Labels, Labels] | None = None
) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy (MMD²) of two samples, and the p-value that both have the same distribution.

    The kernel is Gaussian; its bandwidth is the median distance. The p-value is by permutation, at least 1 / (1 + permutations).

    Args:
        x: (m, d), two or more points; 1,000 of a larger sample are drawn.
        y: (n, d), likewise.
        seed: of drawing and permuting.
        permutations: their number.
        labels: classes of both samples. Points are permuted within their class, and each class is centered on its own mean in
            the kernel's feature space: another mix of the same classes is then no difference.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", equation 3 (the unbiased estimate, which may be below 0).

    """
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(len(sample))[:MAX_SAMPLE] for sample in (x, y)]
    x, y = x[drawn[0]], y[drawn[1]]
    strata = np.zeros(len(x) + len(y), dtype=np.int64)
    if labels:
        classes = [np.asarray(names, dtype=object)[rows] for names, rows in zip(labels, drawn, strict=True)]
        strata = pd.factorize(np.concatenate(classes))[0]
    kernel = _gaussian_kernel(np.concatenate([x, y]).astype(np.float64))
    if labels:
        _center_strata(kernel, strata)
    stratum_rows = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    in_x = np.repeat([1.0, 0.0], [len(x), len(y)])[:, None]
    observed = float(_squared_mmd(kernel, in_x)[0])
    num_as_large = 0
    for start in range(0, permutations, PERMUTATION_BLOCK):
        permuted = np.repeat(in_x, min(PERMUTATION_BLOCK, permutations - start), axis=1)
        for rows in stratum_rows:
            permuted[rows] = rng.permuted(permuted[rows], axis=0)
        num_as_large += int((_squared_mmd(kernel, permuted) >= observed - ROUNDING).sum())
    return observed, (1 + num_as_large) / (1 + permutations)


def _gaussian_kernel(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Gaussian kernel (n, n) of points (n, d), with 0 on the diagonal: no point is compared with itself."""
    kernel: npt.NDArray[np.float64] = euclidean_distances(points, squared=True)
    positive = kernel[kernel > 0]
    kernel /= -2 * (np.median(positive) if len(positive) else 1.0)
    np.exp(kernel, out=kernel)
    np.fill_diagonal(kernel, 0)
    return kernel


def _center_strata(kernel: npt.NDArray[np.float64], strata: npt.NDArray[np.int64]) -> None:
    """Center each stratum of a kernel (n, n) on its own mean, in place; the diagonal stays 0."""
    membership = (strata[:, None] == np.arange(strata.max() + 1)).astype(np.float64)
    mean_weights = membership / membership.sum(axis=0)
    np.fill_diagonal(kernel, 1)
    kernel -= membership @ (mean_weights.T @ kernel)
    kernel -= (kernel @ mean_weights) @ membership.T
    np.fill_diagonal(kernel, 0)


def _squared_mmd(kernel: npt.NDArray[np.float64], in_x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return MMD² (b,) for each column of `in_x` (n, b): 1 for the points of the one sample, 0 for those of the other."""
    m = in_x[:, 0].sum()
    n = len(in_x) - m
    sums_over_x = kernel @ in_x
    within_x = np.einsum("ib,ib->b", in_x, sums_over_x)
    between = sums_over_x.sum(axis=0) - within_x
    within_y = kernel.sum() - within_x - 2 * between
    squared_mmd: npt.NDArray[np.float64] = within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * between / (m * n)
    return squared_mmd

"""Images in the order of their class paths: counting and drawing those that share so many folders is index arithmetic."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class HierarchyBlocks:
    """Images sorted by class path, so that those which share their first d folders with one of them are one block.

    Those that share exactly d with it are a ring: its block of depth d without its block of depth d + 1. All methods take
    and return positions in the sorted order, elementwise, and broadcast.

    Attributes:
        order: (n,) row at each position.
        depth: folders of a class path.
        start, stop: (depth + 2, n) block of each position by depth: from all images (0) over its class (depth) to
            itself alone (depth + 1).
        leaves: (classes,) first position of each class.

    """

    def __init__(self, codes: Ints) -> None:
        """Sort (n, depth) class codes, coarsest first (see `relevance.levels`)."""
        n, self.depth = codes.shape
        self.order: Ints = np.lexsort(codes.T[::-1])
        path, at = codes[self.order], np.arange(n)
        first = np.ones((self.depth + 2, n), dtype=bool)
        first[0, 1:] = False
        first[1:-1, 1:] = np.logical_or.accumulate(path[1:] != path[:-1], axis=1).T
        self.start: Ints = np.maximum.accumulate(np.where(first, at, 0), axis=1)
        # A block ends where the next one begins; the one that follows the last position is the first again.
        last = np.roll(first, -1, axis=1)
        self.stop: Ints = np.minimum.accumulate(np.where(last, at + 1, n)[:, ::-1], axis=1)[:, ::-1]
        self.leaves: Ints = np.flatnonzero(first[self.depth])

    def count(self, at: Ints, outer: Ints | int, inner: Ints | int) -> Ints:
        """Return how many images share `outer` folders with the one at a position, but not `inner`."""
        return self.stop[outer, at] - self.start[outer, at] - self.stop[inner, at] + self.start[inner, at]

    def member(self, at: Ints, outer: Ints | int, inner: Ints | int, k: Ints) -> Ints:
        """Return the k-th of the images that `count` counts: a place past the inner block's start skips over it."""
        place = self.start[outer, at] + k
        return np.where(place >= self.start[inner, at], place + self.stop[inner, at] - self.start[inner, at], place)

    def draw(self, at: Ints, outer: Ints | int, inner: Ints | int, rng: np.random.Generator) -> Ints:
        """Return one of the images that `count` counts, each equally likely; there must be one."""
        return self.member(at, outer, inner, rng.integers(0, self.count(at, outer, inner)))

    def sizes(self, at: Ints) -> Ints:
        """Return (n, depth + 1) how many other images share exactly 0, 1, … depth folders with the one at a position."""
        shared = np.arange(self.depth + 1)
        return self.count(at[:, None], shared, shared + 1)


def choose(sizes: Ints, wanted: int, rng: np.random.Generator) -> Ints:
    """Return (n, wanted) numbers below each of n sizes ≥ 1, every set of them equally likely; a smaller size gives all of its
    numbers equally often, and the rest so.

    Source: Floyd's algorithm (Bentley & Floyd 1987, "A sample of brilliance"), a step for all n at once.
    """  # noqa: D205
    whole, rest = np.divmod(wanted, sizes)
    chosen = np.empty((len(sizes), rest.max(initial=0)), dtype=np.int64)
    for step in range(chosen.shape[1]):
        # Rows that want fewer make their steps too, and drop them.
        last = sizes - rest + step
        drawn = rng.integers(0, last + 1)
        chosen[:, step] = np.where((chosen[:, :step] == drawn[:, None]).any(axis=1), last, drawn)
    column, again = np.arange(wanted), (whole * sizes)[:, None]
    if not chosen.shape[1]:
        return column % sizes[:, None]
    taken = np.take_along_axis(chosen, np.clip(column - again, 0, chosen.shape[1] - 1), axis=1)
    return np.where(column < again, column % sizes[:, None], taken)


def graded_pairs(weights: Floats, grades: Floats, same_category_fraction: float, relevance_margin: float) -> Floats:
    """Return for a query of each class how likely it is that its positive shares s and its negative t folders with it.

    It is what redrawing the two until their relevances differ by the relevance_margin gives: the positive from the query's category
    by weight; the negative, with probability `same_category_fraction`, in the same way, else from outside the category.

    Args:
        weights: (classes, depth + 1) total weight of the images that share so many folders with the query; of column
            0, those outside the category, only whether there are any counts.
        grades: (depth + 1,) relevance of two images that share so many folders.
        same_category_fraction: of the negatives, before the relevance_margin.
        relevance_margin: T_r, above 0.

    Returns:
        (classes, depth + 1, depth + 1) probabilities by s and t; all 0 where a query can have no such triplet.

    """
    inside = weights.copy()
    inside[:, 0] = 0
    negative = same_category_fraction * _shares(inside, 1)
    negative[:, 0] = (1 - same_category_fraction) * (weights[:, 0] > 0)
    # The tolerance lets 0.3 - 0.2 be a relevance_margin of 0.1.
    pairs = inside[:, :, None] * negative[:, None, :] * (grades[:, None] - grades >= relevance_margin - 1e-9)
    return _shares(pairs, (1, 2))


def draw_graded(rings: HierarchyBlocks, pairs: Floats, queries: Floats, n: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Draw n queries, and how many folders the positive and the negative of each share with it; none where none can be.

    Args:
        rings: of the images.
        pairs: see `graded_pairs`.
        queries: (classes,) weight of an image of each class as a query.
        n: how many.
        rng: where chance comes from.

    Returns:
        (n,) positions, and twice (n,) shared folders.

    """
    sizes = rings.stop[rings.depth, rings.leaves] - rings.leaves
    cells = (pairs * (queries * sizes)[:, None, None]).ravel()
    possible = np.flatnonzero(cells)
    if not len(possible):
        return (np.empty(0, dtype=np.int64),) * 3
    bound = np.cumsum(cells[possible])
    cell = possible[np.minimum(np.searchsorted(bound, rng.random(n) * bound[-1], side="right"), len(possible) - 1)]
    leaf, positive, negative = np.unravel_index(cell, pairs.shape)
    return rings.leaves[leaf] + rng.integers(0, sizes[leaf]), positive, negative


def _shares(weights: Floats, axes: int | tuple[int, int]) -> Floats:
    """Return weights that sum to 1 along the axes; zeros stay zeros."""
    total = weights.sum(axis=axes, keepdims=True)
    return weights / np.where(total > 0, total, 1)

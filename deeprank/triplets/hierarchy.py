"""Count and draw images by the number of class folders that they share, with index arithmetic on a sorted order."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class HierarchyBlocks:
    """Images sorted by class path, so that all images that share their first d folders with an image are one block.

    The images that share exactly d folders with an image are its block of depth d without its block of depth d + 1. All methods
    take and return positions in the sorted order; they work elementwise and broadcast.

    Attributes:
        order: (n,) row at each position.
        depth: number of folders in a class path.
        start: (depth + 2, n) first position of the block of each position, by depth. The block of depth 0 is all images, the
            block of depth `depth` is the class, the block of depth `depth + 1` is the image alone.
        stop: (depth + 2, n) position after the last one of that block.
        class_starts: (classes,) first position of each class.

    """

    def __init__(self, codes: IntArray) -> None:
        """Sort the images.

        Args:
            codes: (n, depth) class codes, coarsest first (see `encode_hierarchy`).

        """
        n, self.depth = codes.shape
        self.order: IntArray = np.lexsort(codes.T[::-1])
        paths, positions = codes[self.order], np.arange(n)
        is_first = np.ones((self.depth + 2, n), dtype=bool)
        is_first[0, 1:] = False
        is_first[1:-1, 1:] = np.logical_or.accumulate(paths[1:] != paths[:-1], axis=1).T
        self.start: IntArray = np.maximum.accumulate(np.where(is_first, positions, 0), axis=1)
        # A block ends where the next one starts; the roll puts the first position after the last one.
        is_last = np.roll(is_first, -1, axis=1)
        self.stop: IntArray = np.minimum.accumulate(np.where(is_last, positions + 1, n)[:, ::-1], axis=1)[:, ::-1]
        self.class_starts: IntArray = np.flatnonzero(is_first[self.depth])

    def count(self, positions: IntArray, outer: IntArray | int, inner: IntArray | int) -> IntArray:
        """Return the number of images that share `outer` folders with the image at a position, but not `inner` folders."""
        outer_size = self.stop[outer, positions] - self.start[outer, positions]
        return outer_size - self.stop[inner, positions] + self.start[inner, positions]

    def select(self, positions: IntArray, outer: IntArray | int, inner: IntArray | int, k: IntArray) -> IntArray:
        """Return the position of the k-th image (from 0) of those that `count` counts."""
        selected = self.start[outer, positions] + k
        inner_start, inner_stop = self.start[inner, positions], self.stop[inner, positions]
        return np.where(selected >= inner_start, selected + inner_stop - inner_start, selected)

    def draw(self, positions: IntArray, outer: IntArray | int, inner: IntArray | int, rng: np.random.Generator) -> IntArray:
        """Return the position of a random image of those that `count` counts, each equally likely; there must be one."""
        return self.select(positions, outer, inner, rng.integers(0, self.count(positions, outer, inner)))

    def count_by_depth(self, positions: IntArray) -> IntArray:
        """Return (n, depth + 1) numbers of other images that share exactly 0, 1, … depth folders with the image at a position."""
        shared = np.arange(self.depth + 1)
        return self.count(positions[:, None], shared, shared + 1)


def sample_without_replacement(sizes: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Draw `count` different numbers below each size, every set of them equally likely.

    A size below `count` gives all of its numbers equally often, as far as that is possible; a random set of them comes once more.

    Args:
        sizes: (n,) of at least 1.
        count: how many numbers for each size.
        rng: source of the random numbers.

    Returns:
        (n, count) numbers.

    Source: Floyd's algorithm (Bentley & Floyd 1987, "A sample of brilliance"), each step for all n sizes at once.

    """
    repeats, rest = np.divmod(count, sizes)
    chosen = np.empty((len(sizes), rest.max(initial=0)), dtype=np.int64)
    for step in range(chosen.shape[1]):
        # Sizes with a smaller rest take part in every step; their surplus numbers are not used.
        last = sizes - rest + step
        drawn = rng.integers(0, last + 1)
        chosen[:, step] = np.where((chosen[:, :step] == drawn[:, None]).any(axis=1), last, drawn)
    column, num_repeated = np.arange(count), (repeats * sizes)[:, None]
    if not chosen.shape[1]:
        return column % sizes[:, None]
    sampled = np.take_along_axis(chosen, np.clip(column - num_repeated, 0, chosen.shape[1] - 1), axis=1)
    return np.where(column < num_repeated, column % sizes[:, None], sampled)


def pair_probabilities(
    weights: FloatArray, relevance_by_depth: FloatArray, same_category_fraction: float, relevance_margin: float
) -> FloatArray:
    """Return the probability that positive and negative of a query share s and t folders with it, for a query of each class.

    The positive is drawn from the query's category by weight. The negative is drawn in the same way with probability
    `same_category_fraction`, else from outside of the category. Both are drawn again until their relevances differ by the margin.

    Args:
        weights: (classes, depth + 1) total weight of the images that share 0, 1, … depth folders with the query. In column 0, the
            images outside of the category, only zero and nonzero are different.
        relevance_by_depth: (depth + 1,) relevance of two images by the number of folders that they share.
        same_category_fraction: probability of a negative from the query's category, before the margin applies; 0 to 1.
        relevance_margin: T_r, least difference between the relevances of positive and negative; above 0.

    Returns:
        (classes, depth + 1, depth + 1) probabilities by s and t; all 0 for a class whose queries have no such triplet.

    """
    same_category = weights.copy()
    same_category[:, 0] = 0
    negative = same_category_fraction * _normalize(same_category, 1)
    negative[:, 0] = (1 - same_category_fraction) * (weights[:, 0] > 0)
    # The tolerance accepts 0.3 - 0.2 as a difference of 0.1.
    has_margin = relevance_by_depth[:, None] - relevance_by_depth >= relevance_margin - 1e-9
    return _normalize(same_category[:, :, None] * negative[:, None, :] * has_margin, (1, 2))


def draw_queries(
    blocks: HierarchyBlocks, probabilities: FloatArray, query_weights: FloatArray, count: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray]:
    """Draw queries, and the number of folders that the positive and the negative of each share with it.

    Args:
        blocks: of the images.
        probabilities: (classes, depth + 1, depth + 1), see `pair_probabilities`.
        query_weights: (classes,) weight of an image of each class as a query.
        count: how many queries.
        rng: source of the random numbers.

    Returns:
        (count,) positions of the queries, and (count,) folders shared by the positive and by the negative; all empty where no class
        has a triplet.

    """
    class_sizes = blocks.stop[blocks.depth, blocks.class_starts] - blocks.class_starts
    cell_weights = (probabilities * (query_weights * class_sizes)[:, None, None]).ravel()
    cells = np.flatnonzero(cell_weights)
    if not len(cells):
        return (np.empty(0, dtype=np.int64),) * 3
    cumulative = np.cumsum(cell_weights[cells])
    drawn = cells[np.minimum(np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right"), len(cells) - 1)]
    class_index, positive_shared, negative_shared = np.unravel_index(drawn, probabilities.shape)
    return blocks.class_starts[class_index] + rng.integers(0, class_sizes[class_index]), positive_shared, negative_shared


def _normalize(weights: FloatArray, axes: int | tuple[int, int]) -> FloatArray:
    """Return weights that sum to 1 along the axes; weights that are all 0 stay 0."""
    total = weights.sum(axis=axes, keepdims=True)
    return weights / np.where(total > 0, total, 1)

"""Online triplet sampling of Wang et al. 2014: a stream of images, and one small buffer per category."""

import numpy as np

from deeprank.triplets.hierarchy import FloatArray, HierarchyBlocks, IntArray, draw_queries, pair_probabilities


class BufferSampler:
    """A weighted reservoir of images for each category (top folder), and triplets drawn from these reservoirs.

    An image j has the key u^(1 / r(j)), where u is uniform in [0, 1) and r(j) is its total relevance to all other images of its
    category. Each buffer keeps the images with the largest keys. An image that is fed again keeps its larger key. A buffer never has
    more than `buffer_size` images.

    Source: section 5.2 of Wang et al. 2014; Efraimidis & Spirakis 2006, "Weighted random sampling with a reservoir".

    Attributes:
        codes: (n, depth) class codes of all images that may be fed.
        relevance_by_depth: (depth + 1,) relevance of two images by the number of folders that they share.
        buffer_size: most images per category.
        same_category_fraction: probability of a negative from the query's category, before the margin applies.
        relevance_margin: T_r, least difference between the relevances of positive and negative.
        total_relevance: (n,) r(j) of each image.
        rows: the images in the buffers, by category, largest key first.
        keys: log(u) / r(j) of each; it gives the same order as u^(1 / r(j)), but does not round to 1.

    """

    def __init__(
        self, codes: IntArray, relevance_by_depth: FloatArray, buffer_size: int, same_category_fraction: float, relevance_margin: float
    ) -> None:
        """Start with empty buffers; for the arguments see the attributes of the same names."""
        self.codes, self.relevance_by_depth, self.buffer_size = codes, relevance_by_depth, buffer_size
        self.same_category_fraction, self.relevance_margin = same_category_fraction, relevance_margin
        blocks = HierarchyBlocks(codes)
        self.total_relevance = np.empty(len(codes))
        self.total_relevance[blocks.order] = blocks.count_by_depth(np.arange(len(codes)))[:, 1:] @ relevance_by_depth[1:]
        self.rows, self.keys = np.empty(0, dtype=np.int64), np.empty(0)

    def feed(self, rows: IntArray, rng: np.random.Generator) -> None:
        """Feed images to the buffers; images fed in one call and images fed one by one give the same buffers.

        Args:
            rows: (m,) rows of `codes`.
            rng: source of the random numbers.

        """
        with np.errstate(divide="ignore"):
            keys = np.concatenate([self.keys, np.log(rng.random(len(rows))) / self.total_relevance[rows]])
        rows = np.concatenate([self.rows, rows])
        # The sort is stable: among equal keys, the image fed first stays first.
        order = np.lexsort((-keys, self.codes[rows, 0]))
        order = order[np.sort(np.unique(rows[order], return_index=True)[1])]
        category = self.codes[rows[order], 0]
        rank = np.arange(len(order)) - np.searchsorted(category, category)
        selected = order[rank < self.buffer_size]
        self.rows, self.keys = rows[selected], keys[selected]

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        """Draw triplets from the images in the buffers.

        All images that can be a query are equally likely. The positive is another image of the query's buffer, accepted with
        probability min(1, r(i, i+) / r(i+)). The negative is drawn in the same way with probability `same_category_fraction`, else
        from another buffer with equal probabilities. Both are drawn again until their relevances differ by the margin.

        The result has exactly the distribution of these trials, but is drawn from cumulative sums of the acceptance probabilities.

        Args:
            count: number of triplets.
            rng: source of the random numbers.

        Returns:
            (count, 3) rows of query, positive and negative; (0, 3) where the buffers have no triplet.

        """
        blocks = HierarchyBlocks(self.codes[self.rows])
        rows = self.rows[blocks.order]
        # min(1, r / r(j)) without a division by 0.
        by_depth = self.relevance_by_depth[:, None]
        acceptance = by_depth / np.maximum(np.maximum(self.total_relevance[rows], by_depth), np.finfo(float).tiny)
        # Outside of the category, all images have the same probability.
        acceptance[0] = 1
        sums = np.pad(np.cumsum(acceptance, axis=1), ((0, 0), (1, 0)))
        depths = range(blocks.depth + 1)
        weights = np.stack([np.sum(_weights_around(blocks, sums, blocks.class_starts, depth), axis=0) for depth in depths], axis=1)
        probabilities = pair_probabilities(weights, self.relevance_by_depth, self.same_category_fraction, self.relevance_margin)
        query, *shared = draw_queries(blocks, probabilities, np.ones(len(blocks.class_starts)), count, rng)
        return rows[np.stack([query, *(_draw_by_weight(blocks, sums, query, depth, rng) for depth in shared)], axis=1)]


def _weights_around(
    blocks: HierarchyBlocks, sums: FloatArray, positions: IntArray, shared: IntArray | int
) -> tuple[FloatArray, FloatArray]:
    """Return the weight of the images that share exactly `shared` folders with each position, before and after its inner block."""
    before = sums[shared, blocks.start[shared + 1, positions]] - sums[shared, blocks.start[shared, positions]]
    return before, sums[shared, blocks.stop[shared, positions]] - sums[shared, blocks.stop[shared + 1, positions]]


def _draw_by_weight(blocks: HierarchyBlocks, sums: FloatArray, positions: IntArray, shared: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw by weight an image that shares exactly `shared` folders with each position.

    Args:
        blocks: of the images.
        sums: (depth + 1, n + 1) cumulative weights by shared folders.
        positions: (m,) of the queries.
        shared: (m,) number of shared folders.
        rng: source of the random numbers.

    """
    before, after = _weights_around(blocks, sums, positions, shared)
    target = rng.random(len(positions)) * (before + after)
    is_after = (target >= before) & (after > 0)
    first = np.where(is_after, blocks.stop[shared + 1, positions], blocks.start[shared, positions])
    last = np.where(is_after, blocks.stop[shared, positions], blocks.start[shared + 1, positions]) - 1
    target += sums[shared, first] - np.where(is_after, before, 0)
    drawn = np.empty_like(positions)
    for depth in np.unique(shared):
        mask = shared == depth
        drawn[mask] = np.searchsorted(sums[depth], target[mask], side="right") - 1
    return np.clip(drawn, first, last)

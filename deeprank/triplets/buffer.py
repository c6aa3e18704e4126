"""The paper's online sampler: triplets of images that stream by, from one small buffer a category."""

import numpy as np

from deeprank.triplets.hierarchy import Floats, HierarchyBlocks, Ints, draw_graded, graded_pairs


class BufferSampler:
    """A weighted reservoir of images for each category (top folder), and the triplets in them.

    An image j has the key u^(1 / r(j)), u uniform in [0, 1) and r(j) its total relevance, to all others of its category;
    each buffer keeps the images of the largest keys. One that streams by again keeps its larger key. What is kept
    never exceeds `buffer_size` a category, however many images were fed.

    Source: section 5.2 of Wang et al. 2014; Efraimidis & Spirakis 2006, "Weighted random sampling with a reservoir".

    Attributes:
        rows: the images in the buffers, by category, largest key first.
        keys: log(u) / r(j) of each, which orders as u^(1 / r(j)) does but does not round to 1.

    """

    def __init__(self, codes: Ints, grades: Floats, buffer_size: int, same_category_fraction: float, relevance_margin: float) -> None:
        """Begin with empty buffers.

        Args:
            codes: (n, depth) class codes of all images that may be fed (see `relevance.levels`).
            grades: (depth + 1,) relevance of two images that share so many folders.
            buffer_size: images a category.
            same_category_fraction: of the negatives, before the relevance_margin.
            relevance_margin: T_r, by which the relevances of positive and negative differ at least.

        """
        rings = HierarchyBlocks(codes)
        self.codes, self.grades, self.buffer_size, self.same_category_fraction, self.relevance_margin = (
            codes,
            grades,
            buffer_size,
            same_category_fraction,
            relevance_margin,
        )
        self.relevance = np.empty(len(codes))
        self.relevance[rings.order] = rings.sizes(np.arange(len(codes)))[:, 1:] @ grades[1:]
        self.rows, self.keys = np.empty(0, dtype=np.int64), np.empty(0)

    def feed(self, rows: Ints, rng: np.random.Generator) -> None:
        """Let images stream by; in one call or one by one, the buffers are the same."""
        with np.errstate(divide="ignore"):
            keys = np.concatenate([self.keys, np.log(rng.random(len(rows))) / self.relevance[rows]])
        rows = np.concatenate([self.rows, rows])
        # The sort is stable: of equal keys, the one that came first stays first.
        order = np.lexsort((-keys, self.codes[rows, 0]))
        order = order[np.sort(np.unique(rows[order], return_index=True)[1])]
        category = self.codes[rows[order], 0]
        kept = order[np.arange(len(order)) - np.searchsorted(category, category) < self.buffer_size]
        self.rows, self.keys = rows[kept], keys[kept]

    def draw(self, n: int, rng: np.random.Generator) -> Ints:
        """Draw triplets.

        The query is any image in the buffers, each equally likely if it can be one. The positive is any other in its
        buffer, accepted with probability min(1, r(i, i+) / r(i+)); the negative, with probability `same_category_fraction`, in the
        same way, else any in another buffer; both are redrawn until the relevance_margin is kept. None of it is done by trial: what
        these trials accept is drawn from the running sums of the acceptances.

        Returns:
            (n, 3) rows of query, positive, negative, or (0, 3) where the buffers hold no triplet.

        """
        rings = HierarchyBlocks(self.codes[self.rows])
        rows = self.rows[rings.order]
        # min(1, r / r(j)) without a division by 0; outside the category all count alike.
        accepted = self.grades[:, None] / np.maximum(np.maximum(self.relevance[rows], self.grades[:, None]), np.finfo(float).tiny)
        accepted[0] = 1
        sums = np.pad(np.cumsum(accepted, axis=1), ((0, 0), (1, 0)))
        weights = np.stack([np.sum(_around(rings, sums, rings.leaves, shared), axis=0) for shared in range(rings.depth + 1)], axis=1)
        pairs = graded_pairs(weights, self.grades, self.same_category_fraction, self.relevance_margin)
        query, *shared = draw_graded(rings, pairs, np.ones(len(rings.leaves)), n, rng)
        return rows[np.stack([query, *(_weighted(rings, sums, query, number, rng) for number in shared)], axis=1)]


def _around(rings: HierarchyBlocks, sums: Floats, at: Ints, shared: Ints | int) -> tuple[Floats, Floats]:
    """Return the weight of a ring before and behind its inner block."""
    before = sums[shared, rings.start[shared + 1, at]] - sums[shared, rings.start[shared, at]]
    return before, sums[shared, rings.stop[shared, at]] - sums[shared, rings.stop[shared + 1, at]]


def _weighted(rings: HierarchyBlocks, sums: Floats, at: Ints, shared: Ints, rng: np.random.Generator) -> Ints:
    """Draw a member of the ring at each position by weight, from the weights' (depth + 1, n + 1) running sums."""
    before, behind = _around(rings, sums, at, shared)
    goal = rng.random(len(at)) * (before + behind)
    past = (goal >= before) & (behind > 0)
    first = np.where(past, rings.stop[shared + 1, at], rings.start[shared, at])
    last = np.where(past, rings.stop[shared, at], rings.start[shared + 1, at]) - 1
    goal += sums[shared, first] - np.where(past, before, 0)
    found = np.empty_like(at)
    for number in np.unique(shared):
        here = shared == number
        found[here] = np.searchsorted(sums[number], goal[here], side="right") - 1
    return np.clip(found, first, last)

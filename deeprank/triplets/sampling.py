"""Which query, positive and negative make a triplet: vectorised over all queries at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from deeprank.errors import DataError
from deeprank.settings import Settings
from deeprank.triplets.relevance import RelevanceWeights, levels, relevance

COLUMNS = ["query", "positive", "negative", "relevance_positive", "relevance_negative", "split"]


class SampleSettings(Settings):
    """How triplets are drawn.

    Attributes:
        positives: P positives a query, from its own class.
        negatives: N negatives for each of them, from other classes.
        near_share: share of negatives drawn from the query's coarse class where it has another fine class.
        weights: of graded relevance.
        seed: same seed, same triplets.

    """

    positives: int = Field(2, ge=1)
    negatives: int = Field(2, ge=1)
    near_share: float = Field(0.0, ge=0, le=1)
    weights: RelevanceWeights = RelevanceWeights()
    seed: int = 0


@dataclass(frozen=True)
class Triplets:
    """Triplets of one catalogue version.

    Attributes:
        frame: columns query, positive, negative (row indices into the catalogue's frame), relevance_positive,
            relevance_negative (float32) and split; a triplet never leaves its split.
        fingerprint: of the catalogue that the indices belong to.

    """

    frame: pd.DataFrame
    fingerprint: str

    def of(self, split: str) -> pd.DataFrame:
        """Return the triplets of one split."""
        return self.frame[self.frame["split"] == split]


def sample_triplets(photographs: pd.DataFrame, settings: SampleSettings, fingerprint: str = "") -> Triplets:
    """Draw triplets within each split, uniformly as the seed does: for each photograph P positives of its class without
    replacement where it has so many, and for each of them N negatives from other classes.

    Args:
        photographs: the catalogue's frame, with columns label and split.
        settings: see SampleSettings.
        fingerprint: of the catalogue.

    Raises:
        DataError: the train split has no two classes of which one has two photographs.

    """  # noqa: D205
    codes = levels(photographs["label"].tolist())
    parts = []
    for number, split in enumerate(("train", "val", "test")):
        rows = np.flatnonzero(photographs["split"] == split)
        rng = np.random.default_rng([settings.seed, number])
        drawn = _draw(codes[rows], settings, rng)
        if len(rows) and not len(drawn) and split == "train":
            raise DataError("the train split has no class of two photographs beside another class: no triplet can be drawn from it")
        query, positive, negative = (rows[drawn[:, i]] for i in range(3))
        parts.append(
            pd.DataFrame(
                {
                    "query": query,
                    "positive": positive,
                    "negative": negative,
                    "relevance_positive": relevance(codes, query, positive, settings.weights),
                    "relevance_negative": relevance(codes, query, negative, settings.weights),
                    "split": split,
                }
            )
        )
    return Triplets(pd.concat(parts, ignore_index=True), fingerprint)


def _draw(codes: npt.NDArray[np.int64], settings: SampleSettings, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return (m, 3) indices into `codes`, or none where no triplet exists."""
    leaf = codes[:, -1] if len(codes) else np.empty(0, dtype=np.int64)
    fine = _Classes(leaf)
    queries = np.flatnonzero(fine.size_of(leaf) > 1)
    if not len(queries) or len(fine.sizes) < 2:
        return np.empty((0, 3), dtype=np.int64)
    query, positive = _positives(fine, leaf, queries, settings.positives, rng)
    query, positive = np.repeat(query, settings.negatives), np.repeat(positive, settings.negatives)
    negative = fine.outside(leaf[query], rng)
    if settings.near_share and codes.shape[1] > 1:
        near = rng.random(len(query)) < settings.near_share
        negative = np.where(near, _near_negatives(codes, query, negative, rng), negative)
    return np.stack([query, positive, negative], axis=1)


class _Classes:
    """Members of each class as one array with offsets, so that drawing is arithmetic."""

    def __init__(self, codes: npt.NDArray[np.int64]) -> None:
        self.order = np.argsort(codes, kind="stable")
        self.values, self.starts, self.sizes = np.unique(codes[self.order], return_index=True, return_counts=True)

    def size_of(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self.sizes[np.searchsorted(self.values, codes)]

    def start_of(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self.starts[np.searchsorted(self.values, codes)]

    def outside(self, codes: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw one member uniformly from all other classes: a position past the own class's block skips over it."""
        start, size = self.start_of(codes), self.size_of(codes)
        position = rng.integers(0, len(self.order) - size)
        return self.order[np.where(position >= start, position + size, position)]


def _positives(
    fine: _Classes, leaf: npt.NDArray[np.int64], queries: npt.NDArray[np.int64], wanted: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw `wanted` positives a query; a class with fewer others gives each of them once, then repeats."""
    rank = np.empty(len(fine.order), dtype=np.int64)
    rank[fine.order] = np.arange(len(fine.order)) - np.repeat(fine.starts, fine.sizes)
    size, start = fine.size_of(leaf[queries]), fine.start_of(leaf[queries])
    # A random start and a step coprime to the number of others walk through them without repetition.
    others = size - 1
    first = rng.integers(0, others)
    step = rng.integers(1, others + 1)
    while (bad := np.gcd(step, others) != 1).any():
        step[bad] = rng.integers(1, others[bad] + 1)
    walk = (first[:, None] + step[:, None] * np.arange(wanted)) % others[:, None]
    walk += walk >= rank[queries][:, None]
    return np.repeat(queries, wanted), fine.order[(start[:, None] + walk).ravel()]


def _near_negatives(
    codes: npt.NDArray[np.int64], query: npt.NDArray[np.int64], fallback: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw from the query's coarse class outside its fine class; `fallback` where it has no other fine class."""
    leaf, coarse = codes[:, -1], codes[:, -2]
    # Members of a coarse class sorted by fine class lie in one block each, so that the own block can be skipped over.
    order = np.lexsort((leaf, coarse))
    values, starts, sizes = np.unique(coarse[order], return_index=True, return_counts=True)
    place = np.searchsorted(values, coarse[query])
    fine_values, fine_starts, fine_sizes = np.unique(leaf[order], return_index=True, return_counts=True)
    fine_place = np.searchsorted(fine_values, leaf[query])
    # np.unique sorts by code; the first position of a code is the start of its block.
    own_start, own_size = fine_starts[fine_place], fine_sizes[fine_place]
    free = sizes[place] - own_size
    position = starts[place] + rng.integers(0, np.maximum(free, 1))
    position = np.where(position >= own_start, position + own_size, position)
    return np.where(free > 0, order[np.minimum(position, len(order) - 1)], fallback)

"""Which query, positive and negative make a triplet: vectorised over all queries at once."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from deeprank.checksums import hash_file
from deeprank.errors import DataError
from deeprank.settings import Settings
from deeprank.triplets.buffer import BufferSampler
from deeprank.triplets.hierarchy import Floats, HierarchyBlocks, Ints, choose, draw_graded, graded_pairs
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy, grades, relevance
from deeprank.triplets.textfile import read_triplet_file

COLUMNS = ["query", "positive", "negative", "relevance_positive", "relevance_negative", "split"]
# Images that stream by the buffers between two draws.
CHUNK = 8192


class SampleSettings(Settings):
    """How triplets are drawn.

    Attributes:
        method: uniform (positives of the query's class, negatives of others), or by graded relevance within the category
            (top folder), as in Wang et al. 2014: relevance (the offline rule) or buffer (the online sampler).
        positives: uniform: P positives a query.
        negatives: uniform: N negatives for each of them.
        same_parent_fraction: uniform: share of negatives drawn from the query's coarse class where it has another fine class.
        count: relevance, buffer: triplets of the train split; 0, and in val and test: images x positives x negatives.
        max_positive_relevance: relevance: T_p, the most that relevance counts in the draw.
        relevance_margin: relevance, buffer: T_r, by which the relevances of positive and negative differ at least.
        same_category_fraction: relevance, buffer: share of negatives drawn from the query's category, before the relevance_margin.
        buffer_size: buffer: images a category.
        file: the seed's triplet file, where the train split's triplets come from instead; val and test are drawn.
            With train.batches: classes only their images count.
        file_checksum: of that file, found by itself, so that a changed file is no cache hit.
        holdout_classes: share of the classes, picked by a hash of their names, that no train or val triplet touches: evaluation then tells how
            well classes are told apart that the net was never trained on.
        weights: of graded relevance.
        seed: same seed, same triplets.

    """

    method: Literal["uniform", "relevance", "buffer"] = "uniform"
    positives: int = Field(2, ge=1)
    negatives: int = Field(2, ge=1)
    same_parent_fraction: float = Field(0.0, ge=0, le=1)
    count: int = Field(0, ge=0)
    max_positive_relevance: float = Field(1.0, gt=0)
    relevance_margin: float = Field(0.1, gt=0)
    same_category_fraction: float = Field(0.5, ge=0, le=1)
    buffer_size: int = Field(1000, ge=2)
    file: str = ""
    file_checksum: str = ""
    holdout_classes: float = Field(0.0, ge=0, lt=1)
    weights: RelevanceWeights = RelevanceWeights()
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _with_checksum(cls, values: Any) -> Any:
        file = values.get("file") if isinstance(values, dict) else None
        if not file or not isinstance(file, str):
            return values
        if not Path(file).is_file():
            raise ValueError(f"the triplet file {file} does not exist")
        return {**values, "file_checksum": hash_file(Path(file))}


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


def sample_triplets(images: pd.DataFrame, settings: SampleSettings, fingerprint: str = "") -> Triplets:
    """Draw triplets within each split; uniformly as the seed does: for each image P positives of its class without
    replacement where it has so many, and for each of them N negatives from other classes.

    Args:
        images: the catalogue's frame, with columns label and split, and path if the triplets come from a file.
        settings: see SampleSettings.
        fingerprint: of the catalogue.

    Raises:
        DataError: the train split holds no triplet, or a line of the file is none of it.

    """  # noqa: D205
    codes = encode_hierarchy(images["label"].tolist())
    parts = []
    for number, (split, rows) in enumerate(_splits(images, settings).items()):
        if settings.file and split == "train":
            drawn = read_triplet_file(Path(settings.file), images["path"].tolist(), train=rows).to_numpy()
        else:
            count = settings.count if settings.count and split == "train" else len(rows) * settings.positives * settings.negatives
            drawn = rows[_draw(codes[rows], settings, count, np.random.default_rng([settings.seed, number]))]
        if len(rows) and not len(drawn) and split == "train":
            raise DataError(_no_triplet(settings))
        query, positive, negative = drawn.T
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


def rows_without_positive(images: pd.DataFrame, settings: SampleSettings) -> Ints:
    """Return the rows that can be no query in their split, such as those alone in their class; a file's split aside."""
    codes = encode_hierarchy(images["label"].tolist())
    found = []
    for split, rows in _splits(images, settings).items():
        if not (settings.file and split == "train"):
            rings = HierarchyBlocks(codes[rows])
            found.append(rows[rings.order[~_can_ask(rings, settings)]])
    return np.sort(np.concatenate(found))


def holdout_labels(labels: Iterable[str], share: float) -> set[str]:
    """Return the classes that are kept out of training, always the same ones of the same classes."""
    ordered = sorted(set(labels), key=lambda label: hashlib.sha256(label.encode()).hexdigest())
    return set(ordered[: round(share * len(ordered))])


def _splits(images: pd.DataFrame, settings: SampleSettings) -> dict[str, Ints]:
    holdout_classes = images["label"].isin(holdout_labels(images["label"], settings.holdout_classes))
    return {
        split: np.flatnonzero((images["split"] == split) & (~holdout_classes | (split == "test"))) for split in ("train", "val", "test")
    }


def _no_triplet(settings: SampleSettings) -> str:
    if settings.file:
        return f"{settings.file} holds no triplets"
    if settings.method == "uniform":
        return "the train split has no class of two images beside another class: no triplet can be drawn from it"
    return (
        f"the train split has no triplet whose relevances differ by {settings.relevance_margin:g}: it needs a category (top folder) of two "
        "images beside another, or an same_category_fraction above 0 and deeper folders; or lower the relevance_margin"
    )


def _draw(codes: Ints, settings: SampleSettings, count: int, rng: np.random.Generator) -> Ints:
    """Return (m, 3) indices into `codes`, or none where no triplet exists."""
    if settings.method == "uniform":
        return _uniform(HierarchyBlocks(codes), settings, rng)
    if settings.method == "relevance":
        return _by_relevance(HierarchyBlocks(codes), settings, count, rng)
    return _buffered(codes, settings, count, rng)


def _uniform(rings: HierarchyBlocks, settings: SampleSettings, rng: np.random.Generator) -> Ints:
    depth = rings.depth
    at = np.argsort(rings.order)
    at = at[_can_ask(rings, settings)[at]]
    positive = rings.member(at[:, None], depth, depth + 1, choose(rings.count(at, depth, depth + 1), settings.positives, rng))
    query, positive = np.repeat(at, settings.positives * settings.negatives), np.repeat(positive.ravel(), settings.negatives)
    outer: Ints | int = 0
    if settings.same_parent_fraction:
        near = (rng.random(len(query)) < settings.same_parent_fraction) & (rings.count(query, depth - 1, depth) > 0)
        outer = np.where(near, depth - 1, 0)
    return rings.order[np.stack([query, positive, rings.draw(query, outer, depth, rng)], axis=1)]


def _by_relevance(rings: HierarchyBlocks, settings: SampleSettings, count: int, rng: np.random.Generator) -> Ints:
    total = rings.sizes(rings.leaves)[:, 1:] @ grades(rings.depth, settings.weights)[1:]
    query, *shared = draw_graded(rings, _pairs(rings, settings), total, count, rng)
    return rings.order[np.stack([query, *(rings.draw(query, number, number + 1, rng) for number in shared)], axis=1)]


def _buffered(codes: Ints, settings: SampleSettings, count: int, rng: np.random.Generator) -> Ints:
    """Let the images stream by once, in random order, and draw as many triplets as their share after each chunk."""
    table = grades(codes.shape[1], settings.weights)
    sampler = BufferSampler(codes, table, settings.buffer_size, settings.same_category_fraction, settings.relevance_margin)
    stream, drawn = rng.permutation(len(codes)), np.empty((0, 3), dtype=np.int64)
    parts, missing = [drawn], 0
    for first in range(0, len(stream), CHUNK):
        chunk = stream[first : first + CHUNK]
        sampler.feed(chunk, rng)
        # What buffers still without a triplet owe is drawn later.
        missing += count * (first + len(chunk)) // len(stream) - count * first // len(stream)
        parts.append(sampler.draw(missing, rng))
        missing -= len(parts[-1])
    return np.concatenate(parts)


def _can_ask(rings: HierarchyBlocks, settings: SampleSettings) -> npt.NDArray[np.bool_]:
    """Return for each position whether a triplet has it as its query."""
    sizes = rings.sizes(rings.leaves)
    if settings.method == "uniform":
        possible = (sizes[:, -1] > 0) & (sizes[:, :-1].sum(axis=1) > 0)
    else:
        possible = _pairs(rings, settings).any(axis=(1, 2))
    return np.repeat(possible, sizes[:, -1] + 1)


def _pairs(rings: HierarchyBlocks, settings: SampleSettings) -> Floats:
    """Return the probabilities of `graded_pairs` where an image counts min(T_p, r(i, j))."""
    table = grades(rings.depth, settings.weights)
    counted: Floats = np.minimum(settings.max_positive_relevance, table)
    counted[0] = 1  # only whether there is anything outside the category matters
    weights = rings.sizes(rings.leaves) * counted
    return graded_pairs(weights, table, settings.same_category_fraction, settings.relevance_margin)

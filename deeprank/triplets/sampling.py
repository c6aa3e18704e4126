"""Sample triplets of query, positive and negative, vectorized over all queries of a split."""

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
from deeprank.row_numbers import CatalogueRows
from deeprank.settings import Settings
from deeprank.triplets.buffer import BufferSampler
from deeprank.triplets.hierarchy import FloatArray, HierarchyBlocks, IntArray, draw_queries, pair_probabilities, sample_without_replacement
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy, relevance, relevance_by_depth
from deeprank.triplets.textfile import read_triplet_file

COLUMNS = ["query", "positive", "negative", "relevance_positive", "relevance_negative", "split"]
# Images that are fed to the buffers between two draws.
IMAGES_PER_DRAW = 8192


class SampleSettings(Settings):
    """How triplets are sampled.

    Attributes:
        method: `uniform`: positives from the query's class, negatives from other classes. `relevance`, `buffer`: by graded relevance
            within the category (top folder), with the offline rule or the online sampler of Wang et al. 2014.
        positives: positives per query (uniform).
        negatives: negatives per positive (uniform).
        same_parent_fraction: share of negatives from the query's coarse class, where that has another fine class (uniform).
        count: triplets of the train split (relevance, buffer); 0, and val and test always: images x positives x negatives.
        max_positive_relevance: T_p, upper limit of the relevance as a sampling weight (relevance).
        relevance_margin: T_r, least difference between the relevances of positive and negative (relevance, buffer).
        same_category_fraction: share of negatives from the query's category, before the margin applies (relevance, buffer).
        buffer_size: most images per category (buffer).
        file: a triplet file as the original Keras scripts write it. It replaces the triplets of the train split; val and test are
            sampled. With `train.batch_sampler: pk`, the triplets only select which images are trained on.
        file_checksum: SHA-256 of that file, computed when the settings are read, so that a changed file is no cache hit.
        holdout_classes: share of the classes, selected by a hash of their names, that no train or val triplet touches. The
            evaluation then measures retrieval on classes that the model was never trained on.
        weights: relevance by shared folders.
        seed: random seed.

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
    def _add_checksum(cls, values: Any) -> Any:
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
        frame: columns query, positive, negative (rows of the catalogue's frame), relevance_positive, relevance_negative (float32)
            and split; the three images of a triplet are in the same split.
        fingerprint: of that catalogue.

    """

    frame: pd.DataFrame
    fingerprint: str

    def in_split(self, split: str) -> pd.DataFrame:
        """Return the triplets of one split."""
        return self.frame[self.frame["split"] == split]


def sample_triplets(images: pd.DataFrame, settings: SampleSettings, fingerprint: str = "") -> Triplets:
    """Sample triplets within each split.

    The method `uniform` is that of the original Keras scripts: for each image P positives of its class, without replacement where
    the class is large enough, and for each positive N negatives from other classes.

    Args:
        images: the catalogue's frame, with columns label and split, and path if the triplets come from a file.
        settings: see SampleSettings.
        fingerprint: of the catalogue.

    Raises:
        DataError: the train split has no triplet, or the triplet file has a wrong line.

    """
    codes = encode_hierarchy(images["label"].tolist())
    frames = []
    for number, (split, rows) in enumerate(_rows_by_split(images, settings).items()):
        if settings.file and split == "train":
            triplets = read_triplet_file(Path(settings.file), images["path"].tolist(), train_rows=rows).to_numpy()
        else:
            count = settings.count if settings.count and split == "train" else len(rows) * settings.positives * settings.negatives
            triplets = rows[_sample(codes[rows], settings, count, np.random.default_rng([settings.seed, number]))]
        if len(rows) and not len(triplets) and split == "train":
            raise DataError(_no_triplet_message(settings))
        query, positive, negative = triplets.T
        frames.append(
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
    return Triplets(pd.concat(frames, ignore_index=True), fingerprint)


def rows_without_positive(images: pd.DataFrame, settings: SampleSettings) -> CatalogueRows:
    """Return the rows of images that cannot be a query in their split, ascending.

    With the method `uniform`, these are the images of singleton classes, and all images of a split with one class.

    Args:
        images: the catalogue's frame, with columns label and split.
        settings: see SampleSettings; where they name a triplet file, the train split is ignored.

    """
    codes = encode_hierarchy(images["label"].tolist())
    without_positive = []
    for split, rows in _rows_by_split(images, settings).items():
        if not (settings.file and split == "train"):
            blocks = HierarchyBlocks(codes[rows])
            without_positive.append(rows[blocks.order[~_can_be_query(blocks, settings)]])
    return CatalogueRows(np.sort(np.concatenate(without_positive)))


def holdout_labels(labels: Iterable[str], share: float) -> set[str]:
    """Return the classes that are held out of training: a function of the class names and the share only."""
    ordered = sorted(set(labels), key=lambda label: hashlib.sha256(label.encode()).hexdigest())
    return set(ordered[: round(share * len(ordered))])


def _rows_by_split(images: pd.DataFrame, settings: SampleSettings) -> dict[str, IntArray]:
    """Return the rows of each split that may be in its triplets."""
    is_held_out = images["label"].isin(holdout_labels(images["label"], settings.holdout_classes))
    return {split: np.flatnonzero((images["split"] == split) & (~is_held_out | (split == "test"))) for split in ("train", "val", "test")}


def _no_triplet_message(settings: SampleSettings) -> str:
    if settings.file:
        return f"{settings.file} has no triplets"
    if settings.method == "uniform":
        return "the train split has no triplet: it needs a class with two images, and another class"
    return (
        f"the train split has no triplet whose relevances differ by {settings.relevance_margin:g}: it needs a category (top folder) with "
        "two images and another category, or sample_triplets.same_category_fraction above 0 and deeper folders; "
        "or lower sample_triplets.relevance_margin"
    )


def _sample(codes: IntArray, settings: SampleSettings, count: int, rng: np.random.Generator) -> IntArray:
    """Return triplets (m, 3) as indices into `codes`; m is 0 where no triplet exists."""
    if settings.method == "uniform":
        return _sample_uniform(HierarchyBlocks(codes), settings, rng)
    if settings.method == "relevance":
        return _sample_by_relevance(HierarchyBlocks(codes), settings, count, rng)
    return _sample_from_buffers(codes, settings, count, rng)


def _sample_uniform(blocks: HierarchyBlocks, settings: SampleSettings, rng: np.random.Generator) -> IntArray:
    """Return triplets of the method `uniform`."""
    depth = blocks.depth
    positions = np.argsort(blocks.order)
    positions = positions[_can_be_query(blocks, settings)[positions]]
    chosen = sample_without_replacement(blocks.count(positions, depth, depth + 1), settings.positives, rng)
    positive = blocks.select(positions[:, None], depth, depth + 1, chosen)
    query, positive = np.repeat(positions, settings.positives * settings.negatives), np.repeat(positive.ravel(), settings.negatives)
    negative_depth: IntArray | int = 0
    if settings.same_parent_fraction:
        from_same_parent = (rng.random(len(query)) < settings.same_parent_fraction) & (blocks.count(query, depth - 1, depth) > 0)
        negative_depth = np.where(from_same_parent, depth - 1, 0)
    return blocks.order[np.stack([query, positive, blocks.draw(query, negative_depth, depth, rng)], axis=1)]


def _sample_by_relevance(blocks: HierarchyBlocks, settings: SampleSettings, count: int, rng: np.random.Generator) -> IntArray:
    """Return triplets of the method `relevance`."""
    total_relevance = blocks.count_by_depth(blocks.class_starts)[:, 1:] @ relevance_by_depth(blocks.depth, settings.weights)[1:]
    query, *shared = draw_queries(blocks, _pair_probabilities(blocks, settings), total_relevance, count, rng)
    return blocks.order[np.stack([query, *(blocks.draw(query, depth, depth + 1, rng) for depth in shared)], axis=1)]


def _sample_from_buffers(codes: IntArray, settings: SampleSettings, count: int, rng: np.random.Generator) -> IntArray:
    """Return triplets of the method `buffer`: all images are fed once in random order; each chunk gets its share of the draws."""
    table = relevance_by_depth(codes.shape[1], settings.weights)
    sampler = BufferSampler(codes, table, settings.buffer_size, settings.same_category_fraction, settings.relevance_margin)
    stream = rng.permutation(len(codes))
    samples, missing = [np.empty((0, 3), dtype=np.int64)], 0
    for first in range(0, len(stream), IMAGES_PER_DRAW):
        chunk = stream[first : first + IMAGES_PER_DRAW]
        sampler.feed(chunk, rng)
        # Where the buffers have no triplet yet, the draws of this chunk are made later.
        missing += count * (first + len(chunk)) // len(stream) - count * first // len(stream)
        samples.append(sampler.draw(missing, rng))
        missing -= len(samples[-1])
    return np.concatenate(samples)


def _can_be_query(blocks: HierarchyBlocks, settings: SampleSettings) -> npt.NDArray[np.bool_]:
    """Return for each position whether the image there is the query of any triplet."""
    counts = blocks.count_by_depth(blocks.class_starts)
    if settings.method == "uniform":
        has_triplet = (counts[:, -1] > 0) & (counts[:, :-1].sum(axis=1) > 0)
    else:
        has_triplet = _pair_probabilities(blocks, settings).any(axis=(1, 2))
    return np.repeat(has_triplet, counts[:, -1] + 1)


def _pair_probabilities(blocks: HierarchyBlocks, settings: SampleSettings) -> FloatArray:
    """Return `pair_probabilities` with the weight min(T_p, r(i, j)) of an image."""
    table = relevance_by_depth(blocks.depth, settings.weights)
    image_weights: FloatArray = np.minimum(settings.max_positive_relevance, table)
    image_weights[0] = 1  # Outside of the category, only whether there are images matters.
    weights = blocks.count_by_depth(blocks.class_starts) * image_weights
    return pair_probabilities(weights, table, settings.same_category_fraction, settings.relevance_margin)

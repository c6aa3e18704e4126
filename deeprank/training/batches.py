"""What is in a batch: P classes x K images, or triplets; every image decoded and forwarded once."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deeprank.data.catalogue import Catalogue
from deeprank.models.inference import in_background
from deeprank.models.preprocessing import Preprocessing

# Memory for decoded images: 10,000 of 256 pixels.
KEPT = 2 * 2**30


@dataclass(frozen=True)
class Batch:
    """Images of one step, and the triplets they stand in where a batch is made of triplets.

    Attributes:
        images: (n,) indices, each once where the batch is made of triplets.
        triplets: (t, 3) places in `images` of query, positive, negative; None: all that the classes make.

    """

    images: npt.NDArray[np.int64]
    triplets: npt.NDArray[np.int64] | None = None


def class_batches(
    classes: npt.NDArray[np.int64], per_batch: int, per_class: int, rng: np.random.Generator, balanced: bool = False
) -> list[Batch]:
    """Divide images into batches of `per_batch` classes x `per_class` images.

    Args:
        classes: (n,) class of each image.
        per_batch: P; fewer where there are fewer classes.
        per_class: K.
        rng: decides order and composition.
        balanced: every class comes as often as any other; else each image comes once at most, and a class whose size is no
            multiple of K fills its last chunk with images it already gave. Once fewer than P classes have any left, these
            wait for the next epoch.

    """
    values, sizes = np.unique(classes, return_counts=True)
    per_batch = min(per_batch, len(values))
    left: dict[int, list[npt.NDArray[np.int64]]] = {}
    for value, size in zip(values, sizes, strict=True):
        chunks = max(1, round(len(classes) / (per_class * len(values)))) if balanced else -(-size // per_class)
        # A permutation over and over: two of the same are never in one chunk of a class that has K.
        members = np.resize(rng.permutation(np.flatnonzero(classes == value)), chunks * per_class)
        left[value] = list(members.reshape(-1, per_class))
    batches: list[Batch] = []
    while len(left) >= per_batch:
        # Classes with most chunks left go first, ties at random: no other order makes more batches.
        values = rng.permutation(list(left))
        chosen = values[np.argsort([-len(left[value]) for value in values], kind="stable")[:per_batch]]
        batches.append(Batch(np.concatenate([left[value].pop() for value in chosen])))
        left = {value: rest for value, rest in left.items() if rest}
    return batches


def triplet_batches(triplets: npt.NDArray[np.int64], per_batch: int, rng: np.random.Generator) -> list[Batch]:
    """Divide triplets (m, 3) in random order into batches; the last one may be smaller, each image is in a batch once."""
    order = rng.permutation(len(triplets))
    parts = [triplets[order[start : start + per_batch]] for start in range(0, len(order), per_batch)]
    return [Batch(images, places.reshape(-1, 3)) for images, places in (np.unique(part, return_inverse=True) for part in parts)]


class DecodedImages:
    """Images of a catalogue as search sees them, uint8 (3, size, size); those decoded once stay in memory, up to KEPT bytes."""

    def __init__(self, catalogue: Catalogue, size: int, decoders: Executor) -> None:
        self.catalogue, self.decoders, self.preprocessing = catalogue, decoders, Preprocessing(size=size)
        self.kept: dict[int, Tensor] = {}
        self.most = KEPT // (3 * size * size)

    def __call__(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return rows of the catalogue's frame as (n, 3, size, size)."""
        missing = [row for row in dict.fromkeys(rows.tolist()) if row not in self.kept]
        jpegs = self.catalogue.images(missing) if missing else []
        # A crop is a view: kept as it is, it would keep the whole image in memory.
        fresh = {row: image.contiguous() for row, image in zip(missing, self.decoders.map(self.preprocessing, jpegs), strict=True)}
        found = torch.stack([self.kept[row] if row in self.kept else fresh[row] for row in rows.tolist()])
        self.kept |= dict(list(fresh.items())[: self.most - len(self.kept)])
        return found


class TrainingBatches:
    """An epoch's batches of images, uint8 (n, 3, size, size); a thread prepares the next ones meanwhile."""

    def __init__(self, batches: list[Batch], decoded: DecodedImages) -> None:
        self.batches, self.decoded = batches, decoded

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return in_background([partial(self.decoded, batch.images) for batch in self.batches])

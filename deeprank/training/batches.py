"""What is in a batch: P classes x K photographs, or triplets; every photograph decoded and forwarded once."""

from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deeprank.data.catalogue import Catalogue
from deeprank.model.embedding import in_background
from deeprank.training.augmentation import AugmentSettings, crop_and_flip


def class_batches(classes: npt.NDArray[np.int64], per_batch: int, per_class: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Divide photographs into batches of `per_batch` classes x `per_class` photographs, each photograph once an epoch.

    A class whose size is no multiple of `per_class` fills its last chunk with photographs it already gave (of its own
    class, repeats only where the class is smaller than `per_class`).

    Args:
        classes: (n,) class of each photograph.
        per_batch: P; fewer where there are fewer classes.
        per_class: K.
        rng: decides order and composition.

    Returns:
        Arrays of indices into `classes`, of equal length.

    """
    chunks: list[tuple[int, npt.NDArray[np.int64]]] = []
    for value in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == value))
        full = -(-len(members) // per_class) * per_class
        chunks += [(value, chunk) for chunk in np.resize(members, full).reshape(-1, per_class)]
    per_batch = min(per_batch, len(np.unique(classes)))
    batches: list[npt.NDArray[np.int64]] = []
    # Chunks in random order; the classes with most chunks left go first when too few other classes remain.
    left: dict[int, list[npt.NDArray[np.int64]]] = {}
    for value, chunk in chunks:
        left.setdefault(value, []).append(chunk)
    while len(left) >= per_batch:
        # Classes with most chunks left go first, ties at random: no other order makes more batches.
        values = rng.permutation(list(left))
        chosen = values[np.argsort([-len(left[value]) for value in values], kind="stable")[:per_batch]]
        batches.append(np.concatenate([left[value].pop() for value in chosen]))
        left = {value: rest for value, rest in left.items() if rest}
    return batches


class TrainingBatches:
    """An epoch's batches, each (images uint8 (n, 3, s, s), rows int64 (n,)); the same seed and epoch give the same ones."""

    def __init__(
        self,
        catalogue: Catalogue,
        batches: list[npt.NDArray[np.int64]],
        size: int,
        augment: AugmentSettings,
        seed: tuple[int, int],
        decoders: Executor,
    ) -> None:
        self.catalogue, self.batches, self.size, self.augment, self.seed, self.decoders = catalogue, batches, size, augment, seed, decoders

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = in_background([partial(self._load, number) for number in range(len(self))])
        return zip(images, map(torch.from_numpy, self.batches), strict=True)

    def _load(self, number: int) -> Tensor:
        rows = self.batches[number]
        jpegs = self.catalogue.photographs(rows)
        # A generator a photograph: the result does not depend on which thread is faster.
        seeds = [[*self.seed, number, place] for place in range(len(rows))]
        return torch.stack(
            list(self.decoders.map(lambda j, s: crop_and_flip(j, self.size, self.augment, np.random.default_rng(s)), jpegs, seeds))
        )

"""Batch samplers: P classes x K images, or triplets with each image once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class BatchIndices:
    """The images of one batch, and its triplets if it was made of triplets.

    Attributes:
        images: (n,) numbers of the images; without repetition in a batch of triplets.
        triplets: (t, 3) positions in `images` of query, positive and negative; None: all triplets that the classes form.

    """

    images: npt.NDArray[np.int64]
    triplets: npt.NDArray[np.int64] | None = None


def pk_batches(
    classes: npt.NDArray[np.int64], classes_per_batch: int, images_per_class: int, rng: np.random.Generator, balanced: bool = False
) -> list[BatchIndices]:
    """Divide images into batches of P classes x K images.

    Args:
        classes: (n,) class of each image.
        classes_per_batch: P; fewer if there are fewer classes.
        images_per_class: K.
        rng: for order and composition.
        balanced: True: every class is sampled equally often. False: each image is sampled once at most, and a class whose size is
            not a multiple of K fills its last chunk with its images again. Images left over when fewer than P classes remain are not
            used in this epoch.

    """
    values, sizes = np.unique(classes, return_counts=True)
    classes_per_batch = min(classes_per_batch, len(values))
    remaining: dict[int, list[npt.NDArray[np.int64]]] = {}
    for value, size in zip(values, sizes, strict=True):
        num_chunks = max(1, round(len(classes) / (images_per_class * len(values)))) if balanced else -(-size // images_per_class)
        # The repeated permutation puts no image twice into a chunk, if the class has K images.
        members = np.resize(rng.permutation(np.flatnonzero(classes == value)), num_chunks * images_per_class)
        remaining[value] = list(members.reshape(-1, images_per_class))
    batches: list[BatchIndices] = []
    while len(remaining) >= classes_per_batch:
        # Classes with the most chunks first, ties in random order: this gives the largest number of batches.
        values = rng.permutation(list(remaining))
        selected = values[np.argsort([-len(remaining[value]) for value in values], kind="stable")[:classes_per_batch]]
        batches.append(BatchIndices(np.concatenate([remaining[value].pop() for value in selected])))
        remaining = {value: chunks for value, chunks in remaining.items() if chunks}
    return batches


def triplet_batches(triplets: npt.NDArray[np.int64], triplets_per_batch: int, rng: np.random.Generator) -> list[BatchIndices]:
    """Divide triplets (m, 3) in random order into batches; the last one may be smaller."""
    order = rng.permutation(len(triplets))
    chunks = [triplets[order[start : start + triplets_per_batch]] for start in range(0, len(order), triplets_per_batch)]
    unique = (np.unique(chunk, return_inverse=True) for chunk in chunks)
    return [BatchIndices(images, positions.reshape(-1, 3)) for images, positions in unique]

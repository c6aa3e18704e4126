"""Batch samplers: P classes x K images, or triplets with each image once."""

import heapq
import math
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
    members_of = np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1])
    members_of = [members for members in members_of if len(members)]
    classes_per_batch = min(classes_per_batch, len(members_of))
    chunks_of = []
    for members in members_of:
        size = len(classes) / len(members_of) if balanced else len(members)
        num_chunks = max(1, round(size / images_per_class)) if balanced else math.ceil(size / images_per_class)
        # The repeated permutation puts no image twice into a chunk, if the class has K images.
        chunks_of.append(list(np.resize(rng.permutation(members), num_chunks * images_per_class).reshape(-1, images_per_class)))
    # Classes with the most chunks first, ties in random order: this gives the largest number of batches.
    queue = [(-len(chunks), rng.random(), number) for number, chunks in enumerate(chunks_of)]
    heapq.heapify(queue)
    batches: list[BatchIndices] = []
    while len(queue) >= classes_per_batch:
        selected = [heapq.heappop(queue)[2] for _ in range(classes_per_batch)]
        batches.append(BatchIndices(np.concatenate([chunks_of[number].pop() for number in selected])))
        for number in selected:
            if chunks_of[number]:
                heapq.heappush(queue, (-len(chunks_of[number]), rng.random(), number))
    return batches


def triplet_batches(triplets: npt.NDArray[np.int64], triplets_per_batch: int, rng: np.random.Generator) -> list[BatchIndices]:
    """Divide triplets (m, 3) in random order into batches; the last one may be smaller."""
    order = rng.permutation(len(triplets))
    chunks = [triplets[order[start : start + triplets_per_batch]] for start in range(0, len(order), triplets_per_batch)]
    unique = (np.unique(chunk, return_inverse=True) for chunk in chunks)
    return [BatchIndices(images, positions.reshape(-1, 3)) for images, positions in unique]

"""Batches of P classes x K images, and batches of triplets; the generator determines them."""

from collections import Counter

import numpy as np
import pytest

from deeprank.training.batches import BatchIndices, pk_batches, triplet_batches


def _images(batches: list[BatchIndices]) -> list[np.ndarray]:
    return [batch.images for batch in batches]


def _classes(sizes: list[int]) -> np.ndarray:
    """Return class codes with gaps between them, in random order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 3 + 1, sizes))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("sizes", "per_batch", "per_class"),
    [([8] * 6, 3, 4), ([7, 5, 9, 4, 12], 2, 4), ([1, 2, 3, 20], 2, 4), ([5] * 3, 12, 4), ([30, 2], 2, 2), ([11] * 12, 8, 4)],
    ids=["even", "uneven", "small classes", "few classes", "one large", "leftovers"],
)
def test_a_pk_batch_has_p_classes_of_k_images(sizes: list[int], per_batch: int, per_class: int, seed: int) -> None:
    classes = _classes(sizes)
    batches = _images(pk_batches(classes, per_batch, per_class, np.random.default_rng(seed)))
    assert batches
    num_classes = min(per_batch, len(sizes))
    size_of = Counter(classes.tolist())
    for batch in batches:
        counts = Counter(classes[batch].tolist())
        assert set(counts.values()) == {per_class}
        assert len(counts) == num_classes
        for code in counts:
            members = batch[classes[batch] == code]
            assert len(set(members.tolist())) == min(per_class, size_of[code])
    num_uses = Counter(np.concatenate(batches).tolist())
    unused = set(range(len(classes))) - set(num_uses)
    assert len(set(classes[list(unused)].tolist())) < num_classes
    for index, count in num_uses.items():
        # A class fills its last chunk with images that were used before; a small class does so more than once.
        assert count <= -(-per_class // size_of[classes[index]]) + 1


def test_every_image_is_used_once_if_batches_fit() -> None:
    batches = _images(pk_batches(_classes([8, 8, 8]), 3, 4, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(24))


def test_the_generator_determines_the_composition() -> None:
    first, again, other = (_images(pk_batches(_classes([8] * 6), 3, 4, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=False))


@pytest.mark.parametrize("sizes", [[40, 8, 8, 8], [1, 2, 30, 3], [5] * 6])
def test_balanced_classes_are_sampled_equally_often(sizes: list[int]) -> None:
    classes = _classes(sizes)
    batches = pk_batches(classes, 2, 4, np.random.default_rng(0), balanced=True)
    counts = Counter(classes[np.concatenate(_images(batches))].tolist())
    assert len(counts) == len(sizes)
    assert len(set(counts.values())) == 1
    assert abs(sum(counts.values()) - len(classes)) <= 2 * len(sizes)
    large = np.flatnonzero(classes == 1 + 3 * int(np.argmax(sizes)))
    num_uses = Counter(np.concatenate(_images(batches)).tolist())
    assert max(num_uses[index] for index in large) <= 1


@pytest.mark.parametrize(("count", "per_batch"), [(20, 8), (7, 3), (3, 8), (1, 1)])
def test_triplet_batches_have_each_triplet_and_image_once(count: int, per_batch: int) -> None:
    triplets = np.random.default_rng(1).integers(0, 9, (count, 3))
    batches = triplet_batches(triplets, per_batch, np.random.default_rng(0))
    assert [len(batch.triplets) for batch in batches] == [min(per_batch, count - start) for start in range(0, count, per_batch)]
    assert all(len(set(batch.images.tolist())) == len(batch.images) for batch in batches)
    from_batches = np.concatenate([batch.images[batch.triplets] for batch in batches])
    assert sorted(map(tuple, from_batches.tolist())) == sorted(map(tuple, triplets.tolist()))


@pytest.mark.parametrize(("num_classes", "size", "per_batch"), [(12, 11, 8), (6, 8, 4), (36, 28, 12), (6, 6, 4)])
def test_the_number_of_pk_batches_is_the_maximum(num_classes: int, size: int, per_batch: int) -> None:
    num_chunks = num_classes * -(-size // 4)
    for seed in range(10):
        batches = pk_batches(np.repeat(np.arange(num_classes), size), per_batch, 4, np.random.default_rng(seed))
        assert len(batches) == num_chunks // per_batch

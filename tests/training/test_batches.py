"""Batches of P classes x K photographs: every photograph once an epoch, always the same for the same seed."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from deeprank.data.catalogue import Catalogue
from deeprank.model.preprocessing import Preprocessing
from deeprank.training.augmentation import AugmentSettings
from deeprank.training.batches import TrainingBatches, class_batches

PLAIN = AugmentSettings(smallest_crop=1, stretch=1, flip=0)


def _classes(sizes: list[int]) -> np.ndarray:
    """Class codes with gaps between them, in random order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 3 + 1, sizes))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("sizes", "per_batch", "per_class"),
    [([8] * 6, 3, 4), ([7, 5, 9, 4, 12], 2, 4), ([1, 2, 3, 20], 2, 4), ([5] * 3, 12, 4), ([30, 2], 2, 2), ([11] * 12, 8, 4)],
    ids=["even", "uneven", "small classes", "few classes", "one large", "leftovers"],
)
def test_a_batch_is_p_classes_of_k_photographs_and_only_leftover_classes_miss_out(
    sizes: list[int], per_batch: int, per_class: int, seed: int
) -> None:
    classes = _classes(sizes)
    batches = class_batches(classes, per_batch, per_class, np.random.default_rng(seed))
    assert batches
    wanted = min(per_batch, len(sizes))
    size_of = Counter(classes.tolist())
    for batch in batches:
        found = Counter(classes[batch].tolist())
        assert set(found.values()) == {per_class}
        assert len(found) == wanted
        for code in found:
            mine = batch[classes[batch] == code]
            assert len(set(mine.tolist())) == min(per_class, size_of[code])
    given = Counter(np.concatenate(batches).tolist())
    missed = set(range(len(classes))) - set(given)
    assert len(set(classes[list(missed)].tolist())) < wanted
    for index, times in given.items():
        # A class fills its last chunk with photographs it already gave, smaller classes more than once.
        assert times <= -(-per_class // size_of[classes[index]]) + 1


def test_where_everything_fits_each_photograph_comes_exactly_once() -> None:
    batches = class_batches(_classes([8, 8, 8]), 3, 4, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(24))


def test_the_generator_decides_the_composition() -> None:
    first, again, other = (class_batches(_classes([8] * 6), 3, 4, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=False))


def _epoch(catalogue: Catalogue, augment: AugmentSettings, seed: tuple[int, int], threads: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows = [np.array([4, 9, 9, 30]), np.array([0, 47]), np.array([3])]
    with ThreadPoolExecutor(threads) as decoders:
        batches = TrainingBatches(catalogue, rows, 48, augment, seed, decoders)
        assert len(batches) == 3
        return list(batches)


def test_each_image_of_a_batch_is_the_photograph_of_its_row(catalogue: Catalogue) -> None:
    squares = catalogue.frame["width"] == catalogue.frame["height"]
    checked = 0
    for images, rows in _epoch(catalogue, PLAIN, (0, 0), 2):
        assert (images.dtype, images.shape[1:]) == (torch.uint8, (3, 48, 48))
        for image, row in zip(images, rows.tolist(), strict=True):
            expected = Preprocessing(size=48)(catalogue.photographs([row])[0])
            if squares[row]:
                assert torch.equal(image, expected)
                checked += 1
            assert (image.float().mean((1, 2)) - expected.float().mean((1, 2))).abs().max() < 40
    assert checked


def test_the_same_seed_gives_the_same_epoch_however_many_threads_there_are(catalogue: Catalogue) -> None:
    one, four = (_epoch(catalogue, AugmentSettings(), (3, 1), threads) for threads in (1, 4))
    assert all(torch.equal(a, b) and torch.equal(r, s) for (a, r), (b, s) in zip(one, four, strict=True))


def test_another_epoch_sees_other_crops_and_a_repeated_photograph_two(catalogue: Catalogue) -> None:
    first, second = (_epoch(catalogue, AugmentSettings(), (3, epoch), 2) for epoch in (1, 2))
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))
    assert not torch.equal(first[0][0][1], first[0][0][2])

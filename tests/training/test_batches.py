"""Batches of P classes x K images, or of triplets: every image once, always the same for the same seed."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from deeprank.data.catalogue import Catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.training.batches import Batch, DecodedImages, TrainingBatches, class_batches, triplet_batches


def _images(batches: list[Batch]) -> list[np.ndarray]:
    return [batch.images for batch in batches]


def _classes(sizes: list[int]) -> np.ndarray:
    """Class codes with gaps between them, in random order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 3 + 1, sizes))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("sizes", "per_batch", "per_class"),
    [([8] * 6, 3, 4), ([7, 5, 9, 4, 12], 2, 4), ([1, 2, 3, 20], 2, 4), ([5] * 3, 12, 4), ([30, 2], 2, 2), ([11] * 12, 8, 4)],
    ids=["even", "uneven", "small classes", "few classes", "one large", "leftovers"],
)
def test_a_batch_is_p_classes_of_k_images_and_only_leftover_classes_miss_out(
    sizes: list[int], per_batch: int, per_class: int, seed: int
) -> None:
    classes = _classes(sizes)
    batches = _images(class_batches(classes, per_batch, per_class, np.random.default_rng(seed)))
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
        # A class fills its last chunk with images it already gave, smaller classes more than once.
        assert times <= -(-per_class // size_of[classes[index]]) + 1


def test_where_everything_fits_each_image_comes_exactly_once() -> None:
    batches = _images(class_batches(_classes([8, 8, 8]), 3, 4, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(24))


def test_the_generator_decides_the_composition() -> None:
    first, again, other = (_images(class_batches(_classes([8] * 6), 3, 4, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=False))


@pytest.mark.parametrize("sizes", [[40, 8, 8, 8], [1, 2, 30, 3], [5] * 6])
def test_balanced_classes_come_equally_often_however_many_images_they_have(sizes: list[int]) -> None:
    classes = _classes(sizes)
    batches = class_batches(classes, 2, 4, np.random.default_rng(0), balanced=True)
    given = Counter(classes[np.concatenate(_images(batches))].tolist())
    assert len(given) == len(sizes)
    assert len(set(given.values())) == 1
    assert abs(sum(given.values()) - len(classes)) <= 2 * len(sizes)
    large = np.flatnonzero(classes == 1 + 3 * int(np.argmax(sizes)))
    times = Counter(np.concatenate(_images(batches)).tolist())
    assert max(times[index] for index in large) <= 1


@pytest.mark.parametrize(("count", "per_batch"), [(20, 8), (7, 3), (3, 8), (1, 1)])
def test_triplets_are_divided_once_each_and_a_image_is_in_a_batch_once(count: int, per_batch: int) -> None:
    triplets = np.random.default_rng(1).integers(0, 9, (count, 3))
    batches = triplet_batches(triplets, per_batch, np.random.default_rng(0))
    assert [len(batch.triplets) for batch in batches] == [min(per_batch, count - start) for start in range(0, count, per_batch)]
    assert all(len(set(batch.images.tolist())) == len(batch.images) for batch in batches)
    again = np.concatenate([batch.images[batch.triplets] for batch in batches])
    assert sorted(map(tuple, again.tolist())) == sorted(map(tuple, triplets.tolist()))


ROWS = [np.array([4, 9, 9, 30]), np.array([0, 47]), np.array([3])]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kept", [0, 3 * 48 * 48 * 3, 2**30])
def test_each_image_of_a_batch_is_the_image_of_its_row_as_search_sees_it(
    catalogue: Catalogue, threads: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeprank.training.batches.KEPT", kept)
    with ThreadPoolExecutor(threads) as decoders:
        decoded = DecodedImages(catalogue, 48, decoders)
        batches = TrainingBatches([Batch(rows) for rows in ROWS], decoded)
        assert len(batches) == 3
        for images, rows in [*zip(batches, ROWS, strict=True), *zip(batches, ROWS, strict=True)]:
            expected = [Preprocessing(size=48)(jpeg) for jpeg in catalogue.images(rows)]
            assert torch.equal(images, torch.stack(expected))
        assert len(decoded.kept) == min(6, kept // (3 * 48 * 48))
        # Of an oblong image only the square that is looked at stays in memory.
        assert {one.untyped_storage().nbytes() for one in decoded.kept.values()} <= {3 * 48 * 48}


def test_what_is_kept_is_not_read_again(catalogue: Catalogue) -> None:
    with ThreadPoolExecutor(1) as decoders:
        decoded = DecodedImages(catalogue, 48, decoders)
        first = decoded(ROWS[0])
        decoded.catalogue = None
        assert torch.equal(decoded(ROWS[0][[3, 0]]), first[[3, 0]])

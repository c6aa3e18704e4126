"""The images of a training and their decoded batches."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from deeprank.data.catalogue import Catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.training.batches import BatchIndices
from deeprank.training.data import DecodedImages, TrainingBatches, TrainingImages, epoch_image_size, select_training_images
from deeprank.training.settings import TrainSettings
from deeprank.triplets.relevance import encode_hierarchy
from deeprank.triplets.sampling import Triplets

BATCH_ROWS = [np.array([4, 9, 9, 30]), np.array([0, 47]), np.array([3])]


def _all_images(catalogue: Catalogue) -> TrainingImages:
    classes = np.unique(catalogue.frame["label"], return_inverse=True)[1]
    return TrainingImages(np.arange(len(classes)), classes, np.empty((0, 3), dtype=np.int64), np.arange(6)[:, None])


@pytest.mark.parametrize("num_threads", [1, 4])
@pytest.mark.parametrize("max_bytes", [0, 3 * 48 * 48 * 3, 2**30])
def test_batches_have_the_images_of_their_rows(
    catalogue: Catalogue, num_threads: int, max_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeprank.training.data.MAX_DECODED_BYTES", max_bytes)
    with ThreadPoolExecutor(num_threads) as decoders:
        decoded = DecodedImages(catalogue, 48, decoders)
        batches = TrainingBatches([BatchIndices(rows) for rows in BATCH_ROWS], _all_images(catalogue), decoded, 40)
        assert len(batches) == 3
        for batch, rows in [*zip(batches, BATCH_ROWS, strict=True), *zip(batches, BATCH_ROWS, strict=True)]:
            expected = [Preprocessing(size=48)(jpeg) for jpeg in catalogue.read_jpegs(rows)]
            assert torch.equal(batch.images, torch.stack(expected))
            assert batch.labels.tolist() == np.unique(catalogue.frame["label"], return_inverse=True)[1][rows].tolist()
            assert batch.triplets is None
            assert batch.crop_size == 40
        assert len(decoded.cache) == min(6, max_bytes // (3 * 48 * 48))
        # Only the center square of an image is cached.
        assert {image.untyped_storage().nbytes() for image in decoded.cache.values()} <= {3 * 48 * 48}


def test_cached_images_are_not_read_again(catalogue: Catalogue) -> None:
    with ThreadPoolExecutor(1) as decoders:
        decoded = DecodedImages(catalogue, 48, decoders)
        first = decoded(BATCH_ROWS[0])
        decoded.catalogue = None
        assert torch.equal(decoded(BATCH_ROWS[0][[3, 0]]), first[[3, 0]])


def test_a_batch_of_triplets_has_their_positions(catalogue: Catalogue) -> None:
    indices = BatchIndices(np.array([7, 2, 5]), np.array([[0, 1, 2], [1, 0, 2]]))
    with ThreadPoolExecutor(1) as decoders:
        (batch,) = TrainingBatches([indices], _all_images(catalogue), DecodedImages(catalogue, 48, decoders), 40)
    assert [column.tolist() for column in batch.triplets] == [[0, 1], [1, 0], [2, 2]]


def test_the_training_images_are_those_of_the_triplets(catalogue: Catalogue, triplets: Triplets) -> None:
    images = select_training_images(catalogue, triplets, TrainSettings())
    expected = triplets.in_split("train")[["query", "positive", "negative"]].to_numpy()
    assert images.rows.tolist() == sorted(set(expected.ravel().tolist()))
    assert images.rows[images.triplets].tolist() == expected.tolist()
    labels = catalogue.frame["label"].iloc[images.rows].tolist()
    for other in range(len(labels)):
        assert (images.classes == images.classes[other]).tolist() == [label == labels[other] for label in labels]
    assert np.array_equal(images.class_codes[images.classes], encode_hierarchy(labels))


def test_image_sizes_divide_the_epochs_evenly() -> None:
    settings = TrainSettings(epochs=7, train_image_sizes=(32, 48, 64))
    assert [epoch_image_size(settings, epoch) for epoch in range(7)] == [32, 32, 32, 48, 48, 64, 64]
    settings = TrainSettings(epochs=2, train_image_sizes=(32, 48, 64))
    assert [epoch_image_size(settings, epoch) for epoch in range(2)] == [48, 64]

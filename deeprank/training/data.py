"""Data of a training: the images that are trained on, their classes and triplets, and the decoded batches of an epoch."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.memory import release_freed_memory
from deeprank.models.inference import run_in_background
from deeprank.models.preprocessing import Preprocessing
from deeprank.row_numbers import CatalogueRows
from deeprank.training.augmentation import decoded_size
from deeprank.training.batches import BatchIndices, pk_batches, triplet_batches
from deeprank.training.settings import TrainSettings
from deeprank.triplets.relevance import encode_hierarchy
from deeprank.triplets.sampling import Triplets

# 2,600 decoded images of 256 pixels per side; decoding the others again takes a CPU one percent of a training step.
MAX_DECODED_BYTES = 2**29


@dataclass(frozen=True)
class TrainingImages:
    """The images that are trained on.

    Attributes:
        rows: (n,) of the images.
        classes: (n,) number of the class of each image, 0 to C - 1.
        triplets: (t, 3) positions in `rows` of query, positive and negative.
        class_codes: (C, depth) of each class, see `encode_hierarchy`.

    """

    rows: CatalogueRows
    classes: npt.NDArray[np.int64]
    triplets: npt.NDArray[np.int64]
    class_codes: npt.NDArray[np.int64]


def select_training_images(catalogue: Catalogue, triplets: Triplets, settings: TrainSettings) -> TrainingImages:
    """Return the images of the triplets of `settings.splits`.

    With batches of classes on train and val, all val images of their classes are added: an image that is alone in its class in val is
    in no triplet of val, but train has other images of the class. Held-out classes are in no triplet and stay out.

    Raises:
        DataError: fewer than two classes.

    """
    triplet_rows = np.concatenate([triplets.in_split(split)[["query", "positive", "negative"]].to_numpy() for split in settings.splits])
    labels = catalogue.frame["label"]
    use_all_val = "val" in settings.splits and settings.batch_sampler == "pk"
    val_rows = catalogue.rows("val") if use_all_val else np.empty(0, dtype=np.int64)
    val_rows = val_rows[labels.iloc[val_rows].isin(labels.iloc[np.unique(triplet_rows)]).to_numpy()]
    rows, positions = np.unique(np.concatenate([triplet_rows.ravel(), val_rows]), return_inverse=True)
    codes = encode_hierarchy(labels.iloc[rows].tolist())
    values, first, classes = np.unique(codes[:, -1], return_index=True, return_inverse=True)
    if len(values) < 2:
        raise DataError("training needs at least two classes in the train split")
    return TrainingImages(CatalogueRows(rows), classes, positions[: triplet_rows.size].reshape(-1, 3), codes[first])


class DecodedImages:
    """Decoded images of a catalogue, with the preprocessing of search; up to MAX_DECODED_BYTES of them stay in memory."""

    def __init__(self, catalogue: Catalogue, size: int, decoders: Executor) -> None:
        self.catalogue, self.decoders, self.preprocessing = catalogue, decoders, Preprocessing(size=size)
        self.cache: dict[int, Tensor] = {}
        self.max_cached = MAX_DECODED_BYTES // (3 * size * size)

    def __call__(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the images of rows of the catalogue's frame, uint8 (n, 3, size, size)."""
        missing = [row for row in dict.fromkeys(rows.tolist()) if row not in self.cache]
        jpegs = self.catalogue.read_jpegs(missing) if missing else []
        # A center crop is a view; cached as a view, it would keep the whole image in memory.
        decoded = {row: image.contiguous() for row, image in zip(missing, self.decoders.map(self.preprocessing, jpegs), strict=True)}
        images = torch.stack([self.cache[row] if row in self.cache else decoded[row] for row in rows.tolist()])
        self.cache |= dict(list(decoded.items())[: self.max_cached - len(self.cache)])
        return images


class TrainingBatch(NamedTuple):
    """The tensors of one batch.

    Attributes:
        images: uint8 (n, 3, s, s), larger than the crop.
        labels: (n,) class numbers.
        triplets: positions (query, positive, negative), (t,) each; None: all triplets that the classes form.
        crop_size: pixels per side of the crop.

    """

    images: Tensor
    labels: Tensor
    triplets: tuple[Tensor, ...] | None
    crop_size: int


class TrainingBatches:
    """The batches of one epoch; a thread decodes the next ones while a batch is trained on."""

    def __init__(self, batches: list[BatchIndices], images: TrainingImages, decoded: DecodedImages, crop_size: int) -> None:
        self.batches, self.images, self.decoded, self.crop_size = batches, images, decoded, crop_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[TrainingBatch]:
        jobs = [partial(self.decoded, self.images.rows[batch.images]) for batch in self.batches]
        for batch, images in zip(self.batches, run_in_background(jobs), strict=True):
            labels = torch.from_numpy(self.images.classes[batch.images])
            triplets = None if batch.triplets is None else tuple(torch.from_numpy(batch.triplets).T)
            yield TrainingBatch(images, labels, triplets, self.crop_size)


class TrainingData(pl.LightningDataModule):
    """The batches of each epoch: composition and order depend only on seed and epoch."""

    def __init__(self, catalogue: Catalogue, images: TrainingImages, settings: TrainSettings, decoders: Executor) -> None:
        super().__init__()
        self.catalogue, self.images, self.settings, self.decoders = catalogue, images, settings, decoders
        self.decoded: DecodedImages | None = None

    def train_dataloader(self) -> TrainingBatches:
        """Return the batches of the trainer's current epoch."""
        assert self.trainer is not None
        settings, epoch = self.settings, self.trainer.current_epoch
        rng = np.random.default_rng([settings.seed, epoch])
        if settings.batch_sampler == "pk":
            batches = pk_batches(self.images.classes, settings.classes_per_batch, settings.images_per_class, rng, settings.balanced)
        else:
            batches = triplet_batches(self.images.triplets, settings.triplets_per_batch, rng)
        crop_size = epoch_image_size(settings, epoch)
        if self.decoded is None or self.decoded.preprocessing.size != decoded_size(crop_size):
            self.decoded = DecodedImages(self.catalogue, decoded_size(crop_size), self.decoders)
            # Buffers of another image size do not fit, and would stay beside the new ones.
            release_freed_memory()
        return TrainingBatches(batches, self.images, self.decoded, crop_size)


def epoch_image_size(settings: TrainSettings, epoch: int) -> int:
    """Return the pixels per side of the training images in an epoch, counted from 0."""
    sizes = settings.train_image_sizes[-settings.epochs :]
    return sizes[epoch * len(sizes) // settings.epochs]

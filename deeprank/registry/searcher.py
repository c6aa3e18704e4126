"""Search with a release: image files in; embeddings, distances and neighbors out."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from deeprank.data.images import to_stored_jpeg
from deeprank.errors import DataError
from deeprank.models.embedding_model import Embedder
from deeprank.models.inference import device, forward
from deeprank.models.memory import keep_freed_memory
from deeprank.models.preprocessing import Preprocessing
from deeprank.registry.releases import Release
from deeprank.search.index import Index

Vectors = npt.NDArray[np.float32]


class Searcher:
    """A release whose model and index are loaded once, on first use.

    Args:
        release: with bundle and index.

    """

    def __init__(self, release: Release) -> None:
        self.release = release

    @cached_property
    def _loaded_bundle(self) -> tuple[Embedder, Preprocessing]:
        keep_freed_memory()
        model, preprocessing = self.release.bundle.load()
        return model.to(device()).to(memory_format=torch.channels_last), preprocessing

    @property
    def model(self) -> Embedder:
        """The model in evaluation mode, on the fastest device."""
        return self._loaded_bundle[0]

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the model's images."""
        return self._loaded_bundle[1]

    @cached_property
    def index(self) -> Index:
        """The index, checked to belong to the model."""
        return self.release.index

    def preprocess(self, image: bytes) -> Tensor:
        """Return an image file as the model's input, uint8 (3, size, size).

        Raises:
            DataError: the bytes are not a readable image.

        """
        return self.preprocessing(to_stored_jpeg(image))

    def forward(self, inputs: Tensor) -> Vectors:
        """Return the embeddings (n, d) of preprocessed images (n, 3, size, size)."""
        return forward(self.model, inputs)

    def embed(self, images: Sequence[bytes]) -> Vectors:
        """Return the embeddings (n, d) of n image files.

        Raises:
            DataError: an image is not readable.

        """
        return self.forward(torch.stack([self.preprocess(image) for image in images]))

    def stored_embeddings(self, image_ids: Sequence[str]) -> Vectors:
        """Return the embeddings (n, d) that the index holds of n images of the catalogue.

        Raises:
            DataError: an image is not in the index.

        """
        return self.index.embeddings(self.index.positions_of(image_ids))

    def distance(self, first: bytes, second: bytes) -> float:
        """Return the Euclidean distance of two images' embeddings, 0 to 2."""
        return euclidean_distance(self.embed([first, second]))

    def search(self, images: Sequence[bytes], k: int, *, label_prefix: str = "", max_distance: float | None = None) -> list[pd.DataFrame]:
        """Return the k nearest neighbors of each image in the release's index; see `Index.search`."""
        return self.index.search(self.embed(images), k, label_prefix=label_prefix, max_distance=max_distance)

    def stored_image(self, image_id: str) -> bytes:
        """Return the stored JPEG of an image of the catalogue.

        Raises:
            DataError: the image is not in the index, or the catalogue is missing or has lost the image.

        """
        row = self.index.rows["image_row"].to_numpy()[self.index.positions_of([image_id])]
        catalogue = self.index.catalogue
        # The service sends these messages to its clients, so they do not name the catalogue's location.
        try:
            return catalogue.read_event_jpegs(row)[0]
        except DataError:
            raise DataError(f"the catalogue has lost image {image_id}") from None
        except (ValueError, OSError):
            raise DataError(f"the catalogue of this release, version {catalogue.version}, cannot be opened") from None


def euclidean_distance(pair: Vectors) -> float:
    """Return the Euclidean distance of two embeddings (2, d)."""
    first, second = pair.astype(np.float64)
    return float(np.linalg.norm(first - second))


def mean_direction(embeddings: Vectors) -> Vectors:
    """Return the mean direction (1, d), of unit length, of the embeddings (n, d) of several images of the same object."""
    mean = embeddings.astype(np.float64).mean(axis=0, keepdims=True)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)

"""Answering with a release: an image's bytes in, embeddings, distances and neighbors out."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from deeprank.data.images import stored_jpeg
from deeprank.errors import DataError
from deeprank.models.embedding_model import Embedder
from deeprank.models.inference import device, forward
from deeprank.models.memory import keep_freed_memory
from deeprank.models.preprocessing import Preprocessing
from deeprank.registry.releases import Release
from deeprank.search.index import Index

Vectors = npt.NDArray[np.float32]


class Searcher:
    """A release made ready to answer; what it loads, it loads once."""

    def __init__(self, release: Release) -> None:
        self.release = release

    @cached_property
    def model(self) -> tuple[Embedder, Preprocessing]:
        """The net, where it is fastest, and its preprocessing."""
        keep_freed_memory()
        model, preprocessing = self.release.bundle.load()
        return model.to(device()).to(memory_format=torch.channels_last), preprocessing

    @cached_property
    def index(self) -> Index:
        """The index, checked to belong to the model."""
        return self.release.index

    def prepare(self, image: bytes) -> Tensor:
        """Return an image file as the net's input, uint8 (3, size, size).

        Raises:
            DataError: the bytes are no image that can be read.

        """
        return self.model[1](stored_jpeg(image))

    def forward(self, prepared: Tensor) -> Vectors:
        """Return the embeddings (n, d) of prepared images (n, 3, size, size)."""
        return forward(self.model[0], prepared)

    def embed(self, images: Sequence[bytes]) -> Vectors:
        """Return (n, d) embeddings of image files' bytes.

        Raises:
            DataError: some bytes are no image that can be read.

        """
        return self.forward(torch.stack([self.prepare(image) for image in images]))

    def embeddings_of(self, ids: Sequence[str]) -> Vectors:
        """Return (n, d) what is indexed of images of the catalogue.

        Raises:
            DataError: one is not indexed.

        """
        return self.index.embeddings(self.index.places_of(ids))

    def distance(self, first: bytes, second: bytes) -> float:
        """Return the Euclidean distance of two images' embeddings, 0 to 2."""
        return distance_of(self.embed([first, second]))

    def search(self, images: Sequence[bytes], k: int, *, label_prefix: str = "", max_distance: float | None = None) -> list[pd.DataFrame]:
        """Return each image's k nearest in the release's index; see `Index.search`."""
        return self.index.search(self.embed(images), k, label_prefix=label_prefix, max_distance=max_distance)

    def image(self, id: str) -> bytes:
        """Return the stored JPEG of an image of the catalogue.

        Raises:
            DataError: it is not indexed, or the catalogue is not here or has lost it.

        """
        row = self.index.rows["image_row"].to_numpy()[self.index.places_of([id])]
        catalogue = self.index.catalogue
        # A client is told, and is not to learn where the catalogue lies.
        try:
            return catalogue.stored(row)[0]
        except DataError:
            raise DataError(f"the catalogue has lost image {id}") from None
        except (ValueError, OSError):
            raise DataError(f"the catalogue of this release, version {catalogue.version}, cannot be opened") from None


def distance_of(pair: Vectors) -> float:
    """Return the Euclidean distance of two embeddings (2, d)."""
    first, second = pair.astype(np.float64)
    return float(np.linalg.norm(first - second))


def together(embeddings: Vectors) -> Vectors:
    """Return one query (1, d) of unit length for embeddings (n, d) of several images of one thing: their mean direction."""
    mean = embeddings.astype(np.float64).mean(axis=0, keepdims=True)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)

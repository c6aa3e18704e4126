"""Search with a release: image files in; embeddings, distances and neighbors out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from deeprank.data.image_inputs import convert_each
from deeprank.data.images import to_stored_jpeg
from deeprank.errors import DataError, StoreError
from deeprank.memory import keep_freed_memory
from deeprank.models.embedding_model import Embedder
from deeprank.models.inference import device, forward
from deeprank.models.preprocessing import Preprocessing
from deeprank.registry.releases import Release
from deeprank.search.index import Index

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        vector: (1, d) as `Index.search` takes it.
        familiarity: 0, unlike anything that the model was trained on, to 1.

    """

    vector: Vectors
    familiarity: float

    @property
    def novel(self) -> bool:
        """Whether the query is unlike anything that the model was trained on."""
        return self.familiarity == 0


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

    def embed(self, images: Sequence[bytes], names: Sequence[str] | None = None) -> Vectors:
        """Return the embeddings (n, d) of n image files.

        Args:
            images: bytes of the image files.
            names: of the files, for the error; None: their numbers.

        Raises:
            DataError: an image is not readable.

        """
        return self.forward(torch.stack(list(convert_each(images, self.preprocess, names))))

    def stored_embeddings(self, image_ids: Sequence[str]) -> Vectors:
        """Return the embeddings (n, d) that the index holds of n images of the catalogue.

        Raises:
            DataError: an image is not in the index.

        """
        return self.index.embeddings(self.index.positions_of(image_ids))

    def query(self, embeddings: Vectors) -> Query:
        """Return the query of the embeddings (n, d) of several images of the same object.

        Its similarity to an image is the mean similarity of the images of the object to it.
        """
        queries = self.model.as_queries(embeddings).astype(np.float64)
        vector = queries.mean(axis=0, keepdims=True).astype(np.float32)
        return Query(vector, float(self.model.query_familiarity(embeddings).mean()))

    def distance(self, pair: Vectors) -> float:
        """Return the distance, 0 to 2, of two embeddings (2, d); the first one is the query."""
        return float(self.model.query_distances(pair[:1], pair[1:])[0])

    def search(self, images: Sequence[bytes], k: int, *, label_prefix: str = "", max_distance: float | None = None) -> list[pd.DataFrame]:
        """Return the k nearest neighbors of each image in the release's index; see `Index.search`."""
        return self.index.search(self.model.as_queries(self.embed(images)), k, label_prefix=label_prefix, max_distance=max_distance)

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
        except (StoreError, ValueError, OSError):
            raise DataError(f"the catalogue of this release, version {catalogue.version}, cannot be opened") from None
        except DataError:
            raise DataError(f"the catalogue has lost image {image_id}") from None

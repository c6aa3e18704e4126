"""Answering with a release: a photograph's bytes in, embeddings, distances and neighbours out."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.data.photographs import canonical
from deeprank.model.embedding import embed_jpegs
from deeprank.model.network import Embedder
from deeprank.model.preprocessing import Preprocessing
from deeprank.serving.registry import Release


class Searcher:
    """A release made ready to answer."""

    def __init__(self, release: Release) -> None:
        self.release = release

    @cached_property
    def _model(self) -> tuple[Embedder, Preprocessing]:
        return self.release.bundle.load()

    def embed(self, images: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Return (n, d) embeddings of image files' bytes.

        Raises:
            DataError: some bytes are no image that can be read.

        """
        return embed_jpegs(*self._model, [canonical(image).jpeg for image in images])

    def distance(self, first: bytes, second: bytes) -> float:
        """Return the Euclidean distance of two photographs' embeddings, 0 to 2."""
        a, b = self.embed([first, second]).astype(np.float64)
        return float(np.linalg.norm(a - b))

    def search(self, images: Sequence[bytes], k: int) -> list[pd.DataFrame]:
        """Return each photograph's k nearest in the release's index; see `Index.search`."""
        return self.release.index.search(self.embed(images), k)

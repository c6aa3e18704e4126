"""Fixtures of the serving tests: the registry of three releases, and a release in a folder."""

from pathlib import Path

import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.triplets.sampling import Triplets
from tests.registry_fixtures import make_release_with_canary, store, tracking

__all__ = ["store", "tracking"]


@pytest.fixture(scope="module")
def folder(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a release with its canary."""
    return make_release_with_canary(tmp_path_factory.mktemp("served") / "release", catalogue, bundle, embeddings, triplets)

"""Fixtures of the serving tests: the registry of three releases, a release in a folder, its server and a client."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.triplets.sampling import Triplets
from tests.registry_fixtures import make_release_with_canary, store, tracking
from tests.serving.live_server import LiveServer, live_server

__all__ = ["store", "tracking"]


@pytest.fixture(scope="module")
def folder(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a release with its canary."""
    return make_release_with_canary(tmp_path_factory.mktemp("served") / "release", catalogue, bundle, embeddings, triplets)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """A server of the release in a folder."""
    with live_server(str(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[httpx.Client]:
    """A client of the server."""
    with httpx.Client(base_url=server.url) as client:
        yield client

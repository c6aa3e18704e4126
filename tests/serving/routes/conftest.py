"""A server, its client and the images of its catalogue, for tests of the routes."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from tests.serving.live_server import LiveServer, live_server


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """A server of a release in a folder."""
    with live_server(str(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[httpx.Client]:
    """A client of the server."""
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def searcher(folder: Path) -> Searcher:
    """The release of the server, loaded by the library."""
    return Searcher(Release(folder))


@pytest.fixture(scope="module")
def files(synthetic_folder: Path, catalogue: Catalogue) -> list[bytes]:
    """The image files of the catalogue, in the order of its rows."""
    return [(synthetic_folder / path).read_bytes() for path in catalogue.frame["path"]]

"""The release of the server and the images of its catalogue, for tests of the routes."""

from pathlib import Path

import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher


@pytest.fixture(scope="module")
def searcher(folder: Path) -> Searcher:
    """The release of the server, loaded by the library."""
    return Searcher(Release(folder))


@pytest.fixture(scope="module")
def files(synthetic_folder: Path, catalogue: Catalogue) -> list[bytes]:
    """The image files of the catalogue, in the order of its rows."""
    return [(synthetic_folder / path).read_bytes() for path in catalogue.frame["path"]]

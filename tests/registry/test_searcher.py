"""Search with a release: any image file in, distances and neighbors out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.models.bundle import Bundle
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.triplets.sampling import Triplets
from tests.drawing import encoded, pattern
from tests.registry_fixtures import make_release


@pytest.fixture(scope="module")
def searcher(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Searcher:
    return Searcher(Release(make_release(tmp_path_factory.mktemp("r") / "release", catalogue, bundle, embeddings, triplets, 0.6)))


@pytest.fixture(scope="module")
def files(synthetic_folder: Path, catalogue: Catalogue) -> list[bytes]:
    return [(synthetic_folder / path).read_bytes() for path in catalogue.frame["path"]]


def test_query_is_embedded_as_the_catalogue_was(searcher: Searcher, files: list[bytes], embeddings: np.ndarray) -> None:
    assert np.allclose(searcher.embed(files[:5]), embeddings[:5], atol=1e-5)


def test_distance_is_euclidean_symmetric_and_0_for_equal_images(searcher: Searcher, files: list[bytes], embeddings: np.ndarray) -> None:
    expected = float(np.linalg.norm(embeddings[2] - embeddings[40]))
    assert searcher.distance(files[2], files[40]) == pytest.approx(expected, abs=1e-5)
    assert searcher.distance(files[40], files[2]) == pytest.approx(expected, abs=1e-5)
    assert searcher.distance(files[2], files[2]) == pytest.approx(0, abs=1e-6)


def test_image_of_the_catalogue_is_its_own_first_neighbor(searcher: Searcher, files: list[bytes], catalogue: Catalogue) -> None:
    for row, neighbors in zip((7, 33), searcher.search([files[7], files[33]], 4), strict=True):
        assert len(neighbors) == 4
        assert neighbors["path"][0] == catalogue.frame["path"][row]
        assert neighbors["distance"][0] == pytest.approx(0, abs=1e-5)


def test_search_and_distance_agree(searcher: Searcher, files: list[bytes], catalogue: Catalogue) -> None:
    (neighbors,) = searcher.search([files[0]], 5)
    paths = catalogue.frame["path"].tolist()
    for neighbor in neighbors.itertuples():
        assert searcher.distance(files[0], files[paths.index(neighbor.path)]) == pytest.approx(neighbor.distance, abs=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_image_of_any_mode_can_be_a_query(searcher: Searcher, mode: str) -> None:
    (neighbors,) = searcher.search([encoded(pattern(1).convert(mode), "TIFF")], 3)
    assert len(neighbors) == 3


def test_same_image_in_another_format_is_at_a_small_distance(searcher: Searcher) -> None:
    image = pattern(3, (300, 200))
    small = searcher.distance(encoded(image), encoded(image.resize((600, 400), Image.Resampling.BICUBIC), "WEBP", lossless=True))
    assert small < 0.3 * searcher.distance(encoded(image), encoded(pattern(4, (300, 200))))


def test_bytes_that_are_not_an_image_are_refused(searcher: Searcher) -> None:
    with pytest.raises(DataError, match="not an image"):
        searcher.search([b"text"], 1)

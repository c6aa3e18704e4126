"""Answering with a release: any image file in, distances and neighbors out."""

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
from tests.serving.conftest import make_release


@pytest.fixture(scope="module")
def searcher(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Searcher:
    return Searcher(Release(make_release(tmp_path_factory.mktemp("r") / "release", catalogue, bundle, embeddings, triplets, 0.6)))


@pytest.fixture(scope="module")
def files(synthetic_folder: Path, catalogue: Catalogue) -> list[bytes]:
    return [(synthetic_folder / path).read_bytes() for path in catalogue.frame["path"]]


def test_a_query_goes_the_way_the_catalogue_went(searcher: Searcher, files: list[bytes], embeddings: np.ndarray) -> None:
    assert np.allclose(searcher.embed(files[:5]), embeddings[:5], atol=1e-5)


def test_the_distance_is_euclidean_symmetric_and_0_for_the_same(searcher: Searcher, files: list[bytes], embeddings: np.ndarray) -> None:
    expected = float(np.linalg.norm(embeddings[2] - embeddings[40]))
    assert searcher.distance(files[2], files[40]) == pytest.approx(expected, abs=1e-5)
    assert searcher.distance(files[40], files[2]) == pytest.approx(expected, abs=1e-5)
    assert searcher.distance(files[2], files[2]) == pytest.approx(0, abs=1e-6)


def test_a_image_of_the_catalogue_finds_itself_first(searcher: Searcher, files: list[bytes], catalogue: Catalogue) -> None:
    for row, found in zip((7, 33), searcher.search([files[7], files[33]], 4), strict=True):
        assert len(found) == 4
        assert found["path"][0] == catalogue.frame["path"][row]
        assert found["distance"][0] == pytest.approx(0, abs=1e-5)


def test_search_and_distance_agree(searcher: Searcher, files: list[bytes], catalogue: Catalogue) -> None:
    (found,) = searcher.search([files[0]], 5)
    paths = catalogue.frame["path"].tolist()
    for neighbor in found.itertuples():
        assert searcher.distance(files[0], files[paths.index(neighbor.path)]) == pytest.approx(neighbor.distance, abs=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_any_kind_of_image_can_ask(searcher: Searcher, mode: str) -> None:
    (found,) = searcher.search([encoded(pattern(1).convert(mode), "TIFF")], 3)
    assert len(found) == 3


def test_the_same_picture_in_another_format_is_at_a_small_distance(searcher: Searcher) -> None:
    picture = pattern(3, (300, 200))
    small = searcher.distance(encoded(picture), encoded(picture.resize((600, 400), Image.Resampling.BICUBIC), "WEBP", lossless=True))
    assert small < 0.3 * searcher.distance(encoded(picture), encoded(pattern(4, (300, 200))))


def test_what_is_no_image_is_refused(searcher: Searcher) -> None:
    with pytest.raises(DataError, match="not an image"):
        searcher.search([b"text"], 1)

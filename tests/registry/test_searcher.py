"""Search with a release: any image file in, distances and neighbors out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.row_numbers import CatalogueRows
from deeprank.triplets.sampling import Triplets
from tests.drawing import encoded, pattern
from tests.evaluation.search_models import ALL_NOVEL, save_search_model
from tests.registry_fixtures import make_release


@pytest.fixture(scope="module")
def searcher(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Searcher:
    return Searcher(Release(make_release(tmp_path_factory.mktemp("r") / "release", catalogue, bundle, embeddings, triplets, 0.6)))


@pytest.fixture(scope="module")
def files(synthetic_folder: Path, catalogue: Catalogue) -> list[bytes]:
    return [(synthetic_folder / path).read_bytes() for path in catalogue.frame["path"]]


def _distance(searcher: Searcher, first: bytes, second: bytes) -> float:
    return searcher.distance(searcher.embed([first, second]))


def test_query_is_embedded_as_the_catalogue_was(searcher: Searcher, files: list[bytes], embeddings: np.ndarray) -> None:
    assert np.allclose(searcher.embed(files[:5]), embeddings[:5], atol=1e-5)


def test_distance_is_euclidean_symmetric_and_0_for_equal_images(searcher: Searcher, files: list[bytes], embeddings: np.ndarray) -> None:
    expected = float(np.linalg.norm(embeddings[2] - embeddings[40]))
    assert _distance(searcher, files[2], files[40]) == pytest.approx(expected, abs=1e-5)
    assert _distance(searcher, files[40], files[2]) == pytest.approx(expected, abs=1e-5)
    assert _distance(searcher, files[2], files[2]) == pytest.approx(0, abs=1e-6)


def test_image_of_the_catalogue_is_its_own_first_neighbor(searcher: Searcher, files: list[bytes], catalogue: Catalogue) -> None:
    for row, neighbors in zip((7, 33), searcher.search([files[7], files[33]], 4), strict=True):
        assert len(neighbors) == 4
        assert neighbors["path"][0] == catalogue.frame["path"][row]
        assert neighbors["distance"][0] == pytest.approx(0, abs=1e-5)


def test_search_and_distance_agree(searcher: Searcher, files: list[bytes], catalogue: Catalogue) -> None:
    (neighbors,) = searcher.search([files[0]], 5)
    paths = catalogue.frame["path"].tolist()
    for neighbor in neighbors.itertuples():
        assert _distance(searcher, files[0], files[paths.index(neighbor.path)]) == pytest.approx(neighbor.distance, abs=1e-5)


@pytest.fixture(scope="module")
def wary_searcher(catalogue: Catalogue, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """A release to which every query is novel."""
    folder = tmp_path_factory.mktemp("wary")
    bundle = save_search_model(folder / "bundle", ALL_NOVEL)
    vectors = catalogue_embeddings(bundle, catalogue, CatalogueRows(np.arange(len(catalogue.frame))))
    return Searcher(Release(make_release(folder / "release", catalogue, bundle, vectors, triplets, 0.6)))


def test_search_and_distance_agree_for_novel_queries(wary_searcher: Searcher, files: list[bytes], catalogue: Catalogue) -> None:
    paths = catalogue.frame["path"].tolist()
    embeddings = wary_searcher.embed(files)
    (neighbors,) = wary_searcher.search([files[0]], 8)
    for neighbor in neighbors.itertuples():
        pair = embeddings[[0, paths.index(neighbor.path)]]
        assert wary_searcher.distance(pair) == pytest.approx(neighbor.distance, abs=1e-3)
    # The order is that of the pretrained part, which has 95 % of the weight; the stored vectors are the same.
    plain = wary_searcher.index.search(embeddings[:1], 8)[0]
    assert neighbors["path"].tolist() != plain["path"].tolist()
    assert np.allclose(wary_searcher.index.embeddings(np.arange(3)), embeddings[:3], atol=1e-5)


def test_several_views_are_at_their_mean_squared_distance(wary_searcher: Searcher, files: list[bytes]) -> None:
    views = wary_searcher.embed([files[0], files[40]])
    (neighbors,) = wary_searcher.index.search(wary_searcher.query(views).vector, 8)
    images = wary_searcher.stored_embeddings(neighbors["id"].tolist())
    squares = [[wary_searcher.distance(np.stack([view, image])) ** 2 for image in images] for view in views]
    assert neighbors["distance"].to_numpy() == pytest.approx(np.sqrt(np.mean(squares, axis=0)), abs=1e-3)


def test_a_query_says_whether_it_is_novel(wary_searcher: Searcher, searcher: Searcher, files: list[bytes]) -> None:
    novel, familiar = (each.query(each.embed(files[:2])) for each in (wary_searcher, searcher))
    assert (novel.familiarity, novel.novel) == (0, True)
    assert (familiar.familiarity, familiar.novel) == (1, False)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_image_of_any_mode_can_be_a_query(searcher: Searcher, mode: str) -> None:
    (neighbors,) = searcher.search([encoded(pattern(1).convert(mode), "TIFF")], 3)
    assert len(neighbors) == 3


def test_same_image_in_another_format_is_at_a_small_distance(searcher: Searcher) -> None:
    image = pattern(3, (300, 200))
    small = _distance(searcher, encoded(image), encoded(image.resize((600, 400), Image.Resampling.BICUBIC), "WEBP", lossless=True))
    assert small < 0.3 * _distance(searcher, encoded(image), encoded(pattern(4, (300, 200))))


def test_bytes_that_are_not_an_image_are_refused(searcher: Searcher) -> None:
    with pytest.raises(DataError, match="not an image"):
        searcher.search([b"text"], 1)

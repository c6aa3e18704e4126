"""A written index has the catalogue's rows, the model's and the catalogue's identity, and the same bytes for the same images."""

from pathlib import Path

import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.search.index import Index
from deeprank.search.index_files import ROW_COLUMNS
from deeprank.search.search_params import SearchParams
from tests.search.builders import THOROUGH, TWO_LISTS, write_test_index


@pytest.fixture(scope="module")
def index(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return write_test_index(tmp_path_factory.mktemp("index"), TWO_LISTS, catalogue, bundle, embeddings)


@pytest.mark.parametrize("search_params", THOROUGH, ids=str)
def test_same_images_give_the_same_bytes(
    search_params: SearchParams, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    first, second = (write_test_index(tmp_path / name, search_params, catalogue, bundle, embeddings) for name in ("a", "b"))
    # The names of Lance's files are random.
    assert {**first.manifest, "table": None} == {**second.manifest, "table": None}


def test_rows_are_those_of_the_catalogue(index: Index, catalogue: Catalogue) -> None:
    assert index.rows.columns.tolist() == ROW_COLUMNS
    for column in ("path", "id", "label", "split", "image_row"):
        assert index.rows[column].tolist() == catalogue.frame[column].tolist()


def test_manifest_has_the_model_the_catalogue_and_the_params(index: Index, bundle: Bundle, catalogue: Catalogue) -> None:
    assert index.manifest["weights_hash"] == bundle.weights_hash
    assert index.manifest["catalogue"] == {"uri": catalogue.uri, "version": catalogue.version, "fingerprint": catalogue.fingerprint}
    assert index.search_params == TWO_LISTS
    index.check_model(bundle)

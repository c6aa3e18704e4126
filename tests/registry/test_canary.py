"""The canary passes as long as a release returns the neighbors that it returned when it was registered."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deeprank.checksums import read_manifest, write_manifest
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.registry.canary import CANARY_FILE, FORMAT, NUM_NEIGHBORS, NUM_QUERIES, check_canary
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.search.index_files import FORMAT as INDEX_FORMAT
from deeprank.triplets.sampling import Triplets
from tests.conftest import save_untrained
from tests.registry_fixtures import make_release_with_canary


@pytest.fixture
def folder(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path: Path) -> Path:
    return make_release_with_canary(tmp_path / "release", catalogue, bundle, embeddings, triplets)


def _results(folder: Path) -> list[dict[str, list[object]]]:
    return read_manifest(folder / CANARY_FILE, "", FORMAT, {"results"})["results"]


def _check(folder: Path) -> bool:
    return check_canary(Searcher(Release(folder)))


def test_canary_stores_neighbors_of_a_few_images(folder: Path, catalogue: Catalogue) -> None:
    results = _results(folder)
    assert len({result["query"] for result in results}) == len(results) == NUM_QUERIES
    for result in results:
        assert result["neighbors"][0] == result["query"]
        assert len(result["neighbors"]) == len(result["distances"]) == NUM_NEIGHBORS
    assert {result["query"] for result in results} <= set(catalogue.frame["id"])


def test_unchanged_release_passes_and_missing_canary_skips(folder: Path) -> None:
    assert _check(folder) is True
    (folder / CANARY_FILE).unlink()
    assert _check(folder) is False


def test_another_model_under_the_same_index_is_refused(folder: Path, tmp_path: Path) -> None:
    other = save_untrained(tmp_path / "other", seed=9)
    shutil.rmtree(folder / "bundle")
    shutil.copytree(other.folder, folder / "bundle")
    # Make the index claim to belong to the other model.
    index = read_manifest(folder / "index" / "index.json", "", INDEX_FORMAT, set())
    write_manifest(folder / "index" / "index.json", index | {"weights_hash": other.weights_hash})
    message = r"has other neighbors than when the release was registered: neighbor 1 is at distance .* instead of 0\.0000"
    with pytest.raises(ModelError, match=message):
        _check(folder)


def test_other_neighbors_at_the_same_distances_are_refused(folder: Path) -> None:
    results = _results(folder)
    results[3]["neighbors"][1] = "0" * 64
    write_manifest(folder / CANARY_FILE, {"format": FORMAT, "results": results})
    with pytest.raises(ModelError, match="000000000000 is not among them"):
        _check(folder)


def test_last_neighbor_may_change_at_the_same_distance(folder: Path) -> None:
    results = _results(folder)
    results[3]["neighbors"][-1] = "0" * 64
    write_manifest(folder / CANARY_FILE, {"format": FORMAT, "results": results})
    assert _check(folder) is True


def test_edited_or_unreadable_canary_is_refused(folder: Path) -> None:
    text = (folder / CANARY_FILE).read_text()
    (folder / CANARY_FILE).write_text(json.dumps(json.loads(text) | {"results": []}))
    with pytest.raises(ModelError, match="damaged"):
        _check(folder)
    (folder / CANARY_FILE).write_text(text)
    index = read_manifest(folder / "index" / "index.json", "", INDEX_FORMAT, set())
    index["catalogue"]["uri"] = str(folder / "nowhere.lance")
    write_manifest(folder / "index" / "index.json", index)
    with pytest.raises(ModelError, match=r"the canary cannot be checked: the catalogue of this release, version 1, cannot be opened"):
        _check(folder)

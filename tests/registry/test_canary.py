"""The canary: sings as long as a release answers as it did when it was registered."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deeprank.checksums import read_manifest, write_manifest
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.registry.canary import FILE, FORMAT, IMAGES, NEIGHBORS, check_canary, write_canary
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.search.index import FORMAT as INDEX_FORMAT
from deeprank.triplets.sampling import Triplets
from tests.conftest import save_untrained
from tests.serving.conftest import make_release


@pytest.fixture
def folder(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path: Path) -> Path:
    folder = make_release(tmp_path / "release", catalogue, bundle, embeddings, triplets, 0.6)
    write_canary(Release(folder), folder / FILE)
    return folder


def _answers(folder: Path) -> list[dict[str, list[object]]]:
    return read_manifest(folder / FILE, "", FORMAT, {"answers"})["answers"]


def _check(folder: Path) -> bool:
    return check_canary(Searcher(Release(folder)))


def test_it_holds_a_few_images_each_its_own_nearest(folder: Path, catalogue: Catalogue) -> None:
    answers = _answers(folder)
    assert len({answer["image"] for answer in answers}) == len(answers) == IMAGES
    for answer in answers:
        assert answer["neighbors"][0] == answer["image"]
        assert len(answer["neighbors"]) == len(answer["distances"]) == NEIGHBORS
    assert {answer["image"] for answer in answers} <= set(catalogue.frame["id"])


def test_the_release_that_wrote_it_passes_and_one_without_is_not_checked(folder: Path) -> None:
    assert _check(folder) is True
    (folder / FILE).unlink()
    assert _check(folder) is False


def test_another_net_under_the_same_index_is_noticed(folder: Path, tmp_path: Path) -> None:
    other = save_untrained(tmp_path / "other", seed=9)
    shutil.rmtree(folder / "bundle")
    shutil.copytree(other.folder, folder / "bundle")
    # As if somebody had made the index's own record fit.
    index = read_manifest(folder / "index" / "index.json", "", INDEX_FORMAT, set())
    write_manifest(folder / "index" / "index.json", index | {"model": other.weights_hash})
    with pytest.raises(ModelError, match=r"has other neighbors than when it was registered: number 1 is at .* instead of 0\.0000"):
        _check(folder)


def test_other_neighbors_at_the_same_distances_are_noticed(folder: Path) -> None:
    answers = _answers(folder)
    answers[3]["neighbors"][1] = "0" * 64
    write_manifest(folder / FILE, {"format": FORMAT, "answers": answers})
    with pytest.raises(ModelError, match="000000000000 is not among them"):
        _check(folder)


def test_the_last_neighbors_may_give_way_to_others_as_far(folder: Path) -> None:
    answers = _answers(folder)
    answers[3]["neighbors"][-1] = "0" * 64
    write_manifest(folder / FILE, {"format": FORMAT, "answers": answers})
    assert _check(folder) is True


def test_a_canary_that_was_touched_or_cannot_be_asked_is_refused(folder: Path) -> None:
    text = (folder / FILE).read_text()
    (folder / FILE).write_text(json.dumps(json.loads(text) | {"answers": []}))
    with pytest.raises(ModelError, match="damaged"):
        _check(folder)
    (folder / FILE).write_text(text)
    index = read_manifest(folder / "index" / "index.json", "", INDEX_FORMAT, set())
    index["catalogue"]["uri"] = str(folder / "nowhere.lance")
    write_manifest(folder / "index" / "index.json", index)
    with pytest.raises(ModelError, match=r"the canary cannot be asked: the catalogue of this release, version 1, cannot be opened"):
        _check(folder)

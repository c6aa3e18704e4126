"""Arguments of the commands that embed images."""

from pathlib import Path

import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.triplets.sampling import Triplets
from tests.cli.conftest import Run
from tests.drawing import encoded, pattern
from tests.registry_fixtures import make_release


@pytest.fixture(scope="module")
def release(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The folder of a release."""
    return str(make_release(tmp_path_factory.mktemp("cli") / "release", catalogue, bundle, embeddings, triplets, 0.6))


def test_a_missing_model_is_named(tmp_path: Path, deeprank: Run) -> None:
    code, _, err = deeprank("distance", "-m", str(tmp_path / "none"), "-i1", "a.jpg", "-i2", "b.jpg")
    assert code == 1
    assert f"{tmp_path / 'none'} is not a folder" in err


@pytest.mark.parametrize("words", [("--shard", "5"), ("--shard", "a/b")])
def test_a_wrong_shard_is_refused(deeprank: Run, words: tuple[str, str]) -> None:
    code, _, err = deeprank("embed", "-m", "x", "--catalogue", "y", *words)
    assert code == 1
    assert f"{' '.join(words)}: expected N/OF, e.g. 1/4" in err


def test_a_search_without_a_query_is_refused(deeprank: Run) -> None:
    code, _, err = deeprank("search", "-m", "x")
    assert code == 1
    assert "no query: name an image file, or an image of the catalogue with --id" in err


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_a_filter_that_matches_nothing_names_labels(deeprank: Run, release: str, catalogue: Catalogue, words: tuple[str, ...]) -> None:
    label = catalogue.frame["label"][0]
    code, out, err = deeprank("search", "-m", release, "--id", catalogue.frame["id"][0], "--label-prefix", f"{label.upper()} ", *words)
    assert (code, out) == (1, "")
    assert f"no image has the label {label.upper()}  or one below it; nearest: {label}" in err


def test_no_neighbor_up_to_a_distance_is_no_error(deeprank: Run, release: str, catalogue: Catalogue) -> None:
    query = ("--id", catalogue.frame["id"][0], "--label-prefix", catalogue.frame["label"][30], "--max-distance", "0")
    assert deeprank("search", "-m", release, *query)[:2] == (0, "No neighbors up to the distance 0.\n")


def test_the_damaged_one_of_several_query_images_is_named(deeprank: Run, release: str, tmp_path: Path) -> None:
    for name, size in (("a.png", None), ("b.png", 300)):
        (tmp_path / name).write_bytes(encoded(pattern(1))[:size])
    code, _, err = deeprank("search", "-m", release, str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert code == 1
    assert f"{tmp_path / 'b.png'}: damaged or truncated image" in err


def test_queries_in_the_gallery_are_counted(deeprank: Run, release: str, synthetic_folder: Path, catalogue: Catalogue) -> None:
    code, out, err = deeprank("evaluate", "-m", release, "--queries", str(synthetic_folder), "--gallery", str(synthetic_folder))
    assert (code, "fine.recall_at_1" in out) == (0, True)
    assert f"{len(catalogue.frame)} of the {len(catalogue.frame)} queries are also in the gallery; each is left out" in err

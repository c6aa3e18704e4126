"""Evaluating a model on two folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import ingest_folder
from deeprank.errors import DataError
from deeprank.evaluation.folders import evaluate_folders
from deeprank.evaluation.metrics import query_table
from deeprank.models.bundle import Bundle
from deeprank.models.inference import embed_catalogue
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy
from tests.drawing import put_all


@pytest.fixture(scope="module")
def halves(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalogue, Catalogue]:
    """The first three images of each class ask, the others are searched."""
    folder = tmp_path_factory.mktemp("halves")
    for file in sorted(synthetic_folder.rglob("*.jpg")):
        target = folder / ("asks" if int(file.stem) < 3 else "searched") / file.relative_to(synthetic_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    asks, searched = (ingest_folder(folder / name, str(folder / "catalogues"), lambda _: None) for name in ("asks", "searched"))
    return asks, searched


def test_every_image_of_one_folder_asks_the_other(halves: tuple[Catalogue, Catalogue], bundle: Bundle) -> None:
    asks, searched = halves
    found = evaluate_folders(bundle, asks, searched)
    model, preprocessing = bundle.load()
    queries, gallery = (embed_catalogue(model, preprocessing, part, np.arange(len(part.frame))) for part in halves)
    codes = encode_hierarchy(asks.frame["label"].tolist() + searched.frame["label"].tolist())
    expected = query_table(queries, codes[: len(queries)], gallery, codes[len(queries) :], RelevanceWeights())
    assert len(found.queries) == 18
    for name in expected:
        assert found.metrics[name].value == pytest.approx(expected[name].mean())
    # P x N triplets of each of the 18 queries.
    assert found.metrics["triplet_accuracy"].count == 18 * 2 * 2


def test_folders_without_a_common_class_cannot_be_compared(halves: tuple[Catalogue, Catalogue], bundle: Bundle, tmp_path: Path) -> None:
    put_all(tmp_path / "other", {"elsewhere/1.png": 1, "elsewhere/2.png": 2, "nowhere/3.png": 3})
    other = ingest_folder(tmp_path / "other", str(tmp_path / "catalogues"), lambda _: None)
    with pytest.raises(DataError, match=r"no class of the queries \(elsewhere, …\) is in the gallery \(bottles/"):
        evaluate_folders(bundle, other, halves[1])

"""Evaluation of a model on two folders."""

import json
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
from tests.evaluation.search_models import ALL_NOVEL, save_search_model


@pytest.fixture(scope="module")
def halves(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalogue, Catalogue]:
    """The first three images of each class are queries, the others are the gallery."""
    folder = tmp_path_factory.mktemp("halves")
    for file in sorted(synthetic_folder.rglob("*.jpg")):
        target = folder / ("queries" if int(file.stem) < 3 else "gallery") / file.relative_to(synthetic_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    queries, gallery = (ingest_folder(folder / name, str(folder / "catalogues"), lambda _: None) for name in ("queries", "gallery"))
    return queries, gallery


def test_every_image_of_the_first_folder_is_a_query(halves: tuple[Catalogue, Catalogue], bundle: Bundle) -> None:
    result = evaluate_folders(bundle, *halves, pytest.fail)
    model, preprocessing = bundle.load()
    queries, gallery = (embed_catalogue(model, preprocessing, half, np.arange(len(half.frame))) for half in halves)
    codes = encode_hierarchy([label for half in halves for label in half.frame["label"]])
    expected = query_table(queries, codes[: len(queries)], gallery, codes[len(queries) :], RelevanceWeights())
    assert len(result.queries) == 18
    for name in expected:
        assert result.metrics[name].value == pytest.approx(expected[name].mean())
    # 2 positives x 2 negatives for each of the 18 queries.
    assert result.metrics["triplet_accuracy"].count == 18 * 2 * 2


def test_a_query_in_the_gallery_is_not_its_own_neighbor(halves: tuple[Catalogue, Catalogue], bundle: Bundle) -> None:
    messages: list[str] = []
    gallery = halves[1]
    result = evaluate_folders(bundle, gallery, gallery, messages.append)
    size = len(gallery.frame)
    assert messages == [f"{size} of the {size} queries are also in the gallery; each is left out of its own neighbors"]
    model, preprocessing = bundle.load()
    embeddings = embed_catalogue(model, preprocessing, gallery, np.arange(size))
    codes = encode_hierarchy(gallery.frame["label"].tolist())
    for number, query in enumerate(result.queries.itertuples()):
        others = np.flatnonzero(np.arange(size) != number)
        assert query.nearest == size + others[np.argmax(embeddings[others] @ embeddings[number])]
        expected = query_table(embeddings[[number]], codes[[number]], embeddings[others], codes[others], RelevanceWeights())
        assert result.queries[expected.columns].iloc[number].tolist() == pytest.approx(expected.iloc[0].tolist())
    assert result.metrics["fine.recall_at_1"].value < 1


def test_a_query_is_weighted_by_its_familiarity(halves: tuple[Catalogue, Catalogue], tmp_path: Path) -> None:
    bundle = save_search_model(tmp_path / "model", ALL_NOVEL)
    result = evaluate_folders(bundle, *halves, pytest.fail)
    model, preprocessing = bundle.load()
    queries, gallery = (embed_catalogue(model, preprocessing, half, np.arange(len(half.frame))) for half in halves)
    nearest = (model.as_queries(queries) @ gallery.T).argmax(axis=1)
    assert (result.queries["nearest"] - len(queries)).tolist() == nearest.tolist() != (queries @ gallery.T).argmax(axis=1).tolist()
    assert (result.metrics["novel_queries"].value, result.metrics["novel_queries"].count) == (1, len(queries))


def test_one_image_per_class_is_enough_for_a_gallery(synthetic_folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    for file in synthetic_folder.rglob("*.jpg"):
        target = tmp_path / ("gallery" if file.stem == "000" else "queries") / file.relative_to(synthetic_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    queries, gallery = (ingest_folder(tmp_path / name, str(tmp_path / "c"), lambda _: None) for name in ("queries", "gallery"))
    nested = evaluate_folders(bundle, queries, gallery, pytest.fail).nested()
    assert 0 <= nested["fine"]["recall_at_1"] <= 1
    assert "NaN" not in json.dumps(evaluate_folders(bundle, gallery, queries, pytest.fail).nested())


def test_folders_without_a_common_class_are_refused(halves: tuple[Catalogue, Catalogue], bundle: Bundle, tmp_path: Path) -> None:
    put_all(tmp_path / "other", {"elsewhere/1.png": 1, "elsewhere/2.png": 2, "nowhere/3.png": 3})
    other = ingest_folder(tmp_path / "other", str(tmp_path / "catalogues"), lambda _: None)
    with pytest.raises(DataError, match=r"no class of the queries \(elsewhere, …\) is in the gallery \(bottles/"):
        evaluate_folders(bundle, other, halves[1], pytest.fail)

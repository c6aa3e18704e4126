"""The evaluation on images of another kind than the training images."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.evaluation import other_kind
from deeprank.evaluation.bundle_evaluation import embed_and_evaluate, evaluate_bundle
from deeprank.evaluation.evaluation import Evaluation
from deeprank.evaluation.intervals import Estimate
from deeprank.evaluation.other_kind import evaluate_other_kind, ingest_other_kind, queries_and_gallery, result_in_words
from deeprank.models.bundle import Bundle
from deeprank.models.inference import embed_catalogue
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets
from tests.drawing import put_all
from tests.evaluation.search_models import ALL_FAMILIAR, ALL_NOVEL, save_search_model


@pytest.fixture(scope="module")
def folder(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits of their own, a copy at another quality of the first image, and a class with one image."""
    folder = tmp_path_factory.mktemp("other") / "images"
    for number, label in enumerate(sorted(synthetic_folder.glob("*/*/*"))[:4]):
        for file in label.glob("*.jpg"):
            copy = folder / ("train" if int(file.stem) < 5 else "test") / f"class {number}" / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    first = folder / "train" / "class 0" / "000.jpg"
    Image.open(first).save(first.with_name("copy.jpg"), quality=80)
    return put_all(folder, {"train/single/1.png": 1})


@pytest.fixture(scope="module")
def other(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return ingest_other_kind(folder, str(tmp_path_factory.mktemp("catalogues")), print)


def test_each_image_is_a_query_against_all_others(other: Catalogue, bundle: Bundle) -> None:
    frame = other.frame
    assert len(frame) == 34
    result = evaluate_other_kind(other, bundle, "model").queries
    assert len(result) == 32
    embeddings = embed_catalogue(*bundle.load(), other, np.arange(len(frame)))
    for query in result.itertuples():
        # Without near-duplicates of the query, and with one image of each duplicate group.
        others = frame[frame["duplicate_group"] != frame["duplicate_group"][query.row]].drop_duplicates("duplicate_group").index
        assert query.nearest == others[(embeddings[others] @ embeddings[query.row]).argmax()]
        expected = float(frame["label"][query.nearest] == frame["label"][query.row])
        assert result.loc[query.Index, "fine.recall_at_1"] == expected


def test_labels_are_classes_and_not_splits(other: Catalogue) -> None:
    assert set(other.frame["label"]) == {"class 0", "class 1", "class 2", "class 3", "single"}


def test_a_large_folder_has_a_part_of_its_images_as_queries(other: Catalogue, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    all_queries, gallery = queries_and_gallery(other)
    complete = evaluate_other_kind(other, bundle, "model").queries.set_index("row")
    monkeypatch.setattr(other_kind, "MAX_QUERIES", 10)
    queries, same_gallery = queries_and_gallery(other)
    assert len(queries) == 10
    assert np.array_equal(gallery, same_gallery)
    assert other.frame["id"][queries].max() < other.frame["id"][np.setdiff1d(all_queries, queries)].min()
    part = evaluate_other_kind(other, bundle, "model").queries
    assert part["row"].tolist() == queries.tolist()
    assert part["fine.map_at_r"].tolist() == complete["fine.map_at_r"][queries].tolist()


def test_a_folder_of_near_duplicates_is_refused(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "images", {"a/1.png": 1, "b/2.png": 2})
    Image.open(folder / "a" / "1.png").save(folder / "a" / "copy.jpg", quality=90)
    with pytest.raises(DataError, match="no class has two images that are no near-duplicates"):
        ingest_other_kind(folder, str(tmp_path / "catalogues"), lambda _: None)
    with pytest.raises(DataError, match="only one class, a"):
        ingest_other_kind(put_all(tmp_path / "one", {"a/1.png": 1, "a/2.png": 2}), str(tmp_path / "catalogues"), lambda _: None)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return Record(tmp_path_factory.mktemp("record"))


@pytest.fixture(scope="module")
def evaluation(catalogue: Catalogue, bundle: Bundle, other: Catalogue, record: Record) -> Evaluation:
    """The evaluation of a catalogue without a test split, which has no figures."""
    without_test = Catalogue(catalogue.uri, catalogue.version)
    without_test.__dict__["frame"] = catalogue.frame.assign(split="train")
    return evaluate_bundle(without_test, sample_triplets(without_test.frame, SampleSettings()), bundle, record, other)


def test_its_metrics_are_beside_those_of_the_frozen_model(evaluation: Evaluation, record: Record) -> None:
    reported = {point.name: point.value for point in record.points}
    for name in ("fine.recall_at_1", "fine.map_at_r", "ndcg_at_10"):
        trained, frozen, gain = (evaluation.metrics[f"{prefix}other.{name}"] for prefix in ("", "baseline.", "gain."))
        assert trained.count == frozen.count == gain.count == reported["other.queries"] == 32
        assert gain.value == pytest.approx(trained.value - frozen.value)
        assert gain.low <= gain.value <= gain.high
        assert reported[f"gain.other.{name}.low"] == gain.low
    assert evaluation.metrics["other.triplet_accuracy"].count
    assert {name for name in evaluation.metrics if "novel" in name} == {"other.novel_queries"}
    assert record.notes["other.result"] == result_in_words(evaluation.metrics, 33)
    assert record.notes["other.result"].startswith("32 of 33 images of another kind were searched among the others: recall@1 ")


def test_other_images_need_no_test_split(evaluation: Evaluation, record: Record) -> None:
    assert not len(evaluation.queries)
    assert "evaluation.reason" in record.notes
    assert all("other." in name for name in evaluation.metrics)


def test_the_other_queries_are_saved(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path / "with")
    loaded = Evaluation.load(tmp_path / "with").other_queries
    assert loaded is not None
    assert loaded.equals(evaluation.other_queries)
    replace(evaluation, other_queries=None).save(tmp_path / "without")
    assert Evaluation.load(tmp_path / "without").other_queries is None


def test_the_share_of_novel_queries_is_reported(catalogue: Catalogue, triplets: Triplets, other: Catalogue, tmp_path: Path) -> None:
    for name, limits, share in (("novel", ALL_NOVEL, 1.0), ("familiar", ALL_FAMILIAR, 0.0)):
        bundle = save_search_model(tmp_path / name, limits)
        for result, count in (
            (evaluate_other_kind(other, bundle, name), 32),
            (embed_and_evaluate(catalogue, triplets, bundle, name), len(catalogue.rows("test"))),
        ):
            novel = result.metrics["novel_queries"]
            assert (novel.value, novel.count) == (share, count)


@pytest.mark.parametrize(
    ("low", "high", "meaning"),
    [(0.01, 0.03, "helps on this kind too"), (-0.03, -0.01, "made the model worse"), (-0.01, 0.03, "a difference is not proven")],
)
def test_the_result_is_said_in_words(low: float, high: float, meaning: str) -> None:
    recall, gain, novel = Estimate(0.8, 0.7, 0.9, 1200), Estimate((low + high) / 2, low, high, 1200), Estimate(0.25, 0.2, 0.3, 1200)
    metrics = {f"{prefix}other.fine.recall_at_1": recall for prefix in ("", "baseline.")}
    metrics |= {"gain.other.fine.recall_at_1": gain, "other.novel_queries": novel}
    text = result_in_words(metrics, 1234)
    for part in ("1,200 of 1,234 images", "recall@1 0.8000", f"[{low:+.4f}, {high:+.4f}]", meaning, "25% of these queries"):
        assert part in text

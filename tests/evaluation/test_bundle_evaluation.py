"""The evaluation of a bundle beside the frozen baseline."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.utils.validation import _validate_metric_name

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.evaluation.bundle_evaluation import class_group_metrics, embed_and_evaluate, evaluate_bundle, save_frozen_baseline
from deeprank.evaluation.evaluation import Evaluation, evaluate
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel
from deeprank.models.inference import embed_catalogue
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, Triplets, holdout_labels, sample_triplets
from tests.conftest import TINY, save_untrained


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return Record(tmp_path_factory.mktemp("record"))


@pytest.fixture(scope="module")
def evaluation(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, record: Record) -> Evaluation:
    return evaluate_bundle(catalogue, triplets, bundle, record)


def _expected(model: EmbeddingModel, catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> Evaluation:
    embeddings = embed_catalogue(model, bundle.load()[1], catalogue, np.arange(len(catalogue.frame)))
    test_triplets = triplets.in_split("test")[["query", "positive", "negative"]].to_numpy()
    return evaluate(catalogue.frame, embeddings, catalogue.rows("test"), catalogue.rows("train"), test_triplets)


def test_test_images_are_queries_and_train_is_the_gallery(
    evaluation: Evaluation, catalogue: Catalogue, triplets: Triplets, bundle: Bundle
) -> None:
    expected = _expected(bundle.load()[0], catalogue, triplets, bundle)
    assert {name: evaluation.metrics[name] for name in expected.metrics} == expected.metrics
    assert evaluation.queries[expected.queries.columns].equals(expected.queries)


def test_any_bundle_is_evaluated_on_the_same_queries(
    evaluation: Evaluation, catalogue: Catalogue, triplets: Triplets, bundle: Bundle
) -> None:
    result = embed_and_evaluate(catalogue, triplets, bundle, "champion")
    assert {name: evaluation.metrics[name] for name in result.metrics} == result.metrics
    assert evaluation.queries[result.queries.columns].equals(result.queries)


def test_baseline_metrics_are_reported_beside_the_trained(evaluation: Evaluation) -> None:
    for name in ("fine.recall_at_1", "fine.map_at_r"):
        before = evaluation.queries[f"baseline.{name}"]
        assert evaluation.metrics[f"baseline.{name}"].value == pytest.approx(before.mean())
        assert evaluation.metrics[f"gain.{name}"].value == pytest.approx((evaluation.queries[name] - before).mean())


def test_the_baseline_is_the_frozen_model_without_a_head(evaluation: Evaluation, bundle: Bundle, tmp_path: Path) -> None:
    names = {name for name in evaluation.metrics if not name.startswith(("baseline.", "gain."))} - {"novel_queries"}
    assert {name.removeprefix("baseline.") for name in evaluation.metrics if name.startswith("baseline.")} == names
    model, preprocessing = save_frozen_baseline(bundle, tmp_path).load()
    assert isinstance(model, EmbeddingModel)
    assert model.embedding_dim == model.num_features
    assert not list(model.head.parameters())
    assert preprocessing == bundle.load()[1]


def test_every_metric_is_reported_with_its_interval(evaluation: Evaluation, record: Record, catalogue: Catalogue) -> None:
    reported = {point.name: point.value for point in record.points}
    for name, metric in evaluation.metrics.items():
        assert (reported[name], reported[f"{name}.low"], reported[f"{name}.high"]) == (metric.value, metric.low, metric.high)
    assert reported["queries"] == len(catalogue.rows("test"))
    group_metrics = class_group_metrics(evaluation)
    for name, metric in group_metrics.items():
        assert (reported[name], reported[f"{name}.low"], reported[f"{name}.high"]) == (metric.value, metric.low, metric.high)
    assert len(reported) == 3 * (len(evaluation.metrics) + len(group_metrics)) + 1


def _evaluation(class_groups: list[str], recall: list[float]) -> Evaluation:
    """Return an evaluation without near-duplicates."""
    rows = range(len(class_groups))
    table = {"row": rows, "label": [f"{name}/one" for name in class_groups], "class_group": class_groups}
    table |= {"duplicate_group": [f"g{row}" for row in rows]}
    return Evaluation({}, pd.DataFrame(table | {"fine.recall_at_1": recall}))


def test_class_groups_are_reported_in_names_mlflow_allows() -> None:
    labels = ["Fruit/Äpfel & Birnen"] * 12 + ["small"] * 9 + ["x" * 300] * 10 + ["lacking"] * 10
    result = class_group_metrics(_evaluation(labels, [1.0] * 6 + [0.0] * 6 + [1.0] * 19 + [float("nan")] * 10))
    assert list(result) == ["per_class_group/Fruit/Äpfel _ Birnen.recall_at_1", f"per_class_group/{'x' * 200}.recall_at_1"]
    first = next(iter(result.values()))
    assert (first.value, first.count) == (0.5, 12)
    assert 0 < first.low < 0.5 < first.high < 1
    for name in result:
        _validate_metric_name(f"{name}.high")


def test_the_100_largest_class_groups_are_reported() -> None:
    sizes = {f"c{number}": 10 + number % 13 for number in range(130)}
    labels = [label for label, size in sizes.items() for _ in range(size)]
    result = class_group_metrics(_evaluation(labels, [1.0] * len(labels)))
    assert len(result) == 100
    assert min(metric.count for metric in result.values()) == sorted(sizes.values())[-100]


def test_its_figures_are_reported(evaluation: Evaluation, record: Record) -> None:
    assert len(evaluation.queries)
    assert set(record.figures) == {"neighbor_gallery", "explained", "recall_curve", "confusion", "per_class", "embedding_map"}


def _in_splits(catalogue: Catalogue, split: Callable[[str, int], str]) -> Catalogue:
    """Return the catalogue with the split of each image given by its label and its number within the class."""
    frame, other = catalogue.frame.copy(), Catalogue(catalogue.uri, catalogue.version)
    numbers = frame.groupby("label").cumcount()
    other.__dict__["frame"] = frame.assign(split=[split(label, n) for label, n in zip(frame["label"], numbers, strict=True)])
    return other


def test_a_test_split_without_triplets_is_evaluated(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    first = catalogue.frame["label"].unique()[:2]
    changed = _in_splits(catalogue, lambda label, n: "test" if label in first and n == 0 else "train")
    triplets = sample_triplets(changed.frame, SampleSettings(), "x")
    assert not len(triplets.in_split("test"))
    result = evaluate_bundle(changed, triplets, bundle, Record(tmp_path))
    assert result.metrics["fine.recall_at_1"].count == len(result.queries) == 2
    assert result.metrics["triplet_accuracy"].count == 0
    assert result.nested()["triplet_accuracy"] is None


def test_without_an_evaluable_query_the_evaluation_is_empty(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    first = catalogue.frame["label"].unique()[:2]
    changed = _in_splits(catalogue, lambda label, n: "train" if label not in first else "test" if n == 0 else "unused")
    triplets = sample_triplets(changed.frame, SampleSettings(), "x")
    without_test = _in_splits(catalogue, lambda label, n: "train")  # noqa: ARG005
    for images, drawn, queries in ((changed, triplets, 2), (without_test, sample_triplets(without_test.frame, SampleSettings()), 0)):
        record = Record(tmp_path / f"record{queries}")
        result = evaluate_bundle(images, drawn, bundle, record)
        assert not result.metrics
        assert not len(result.queries)
        assert {point.name: point.value for point in record.points} == {"queries": queries}
        assert "no image of the test split has another image of its class" in record.notes["evaluation.reason"]
        assert not record.figures
        assert not len(embed_and_evaluate(images, drawn, bundle, "champion").queries)
        result.save(tmp_path / f"evaluation{queries}")
        loaded = Evaluation.load(tmp_path / f"evaluation{queries}")
        assert not loaded.metrics
        assert loaded.queries.dtypes.equals(result.queries.dtypes)
        assert pd.read_csv(tmp_path / f"evaluation{queries}" / "per_class.csv").empty


def test_a_single_held_out_class_has_no_metrics_of_its_own(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    triplets = sample_triplets(catalogue.frame, SampleSettings(holdout_classes=0.17))
    assert len(holdout_labels(catalogue.frame["label"], 0.17)) == 1
    result = evaluate_bundle(catalogue, triplets, bundle, Record(tmp_path)).metrics
    assert not [name for name in result if "seen." in name]


def test_a_transformer_is_evaluated_without_explanations(catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    transformer = save_untrained(tmp_path / "vit", 0, TINY.model_copy(update={"backbone": "test_vit"}))
    assert evaluate_bundle(catalogue, triplets, transformer, record).metrics["fine.recall_at_1"].count
    assert "explained" not in record.figures


def test_the_gain_is_the_mean_difference_per_query(evaluation: Evaluation) -> None:
    for name in ("fine.recall_at_1", "fine.map_at_r"):
        gain = evaluation.metrics[f"gain.{name}"]
        assert gain.value == pytest.approx(evaluation.metrics[name].value - evaluation.metrics[f"baseline.{name}"].value)
        assert gain.low <= gain.value <= gain.high


def test_held_out_classes_are_evaluated_separately(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    settings = SampleSettings(holdout_classes=0.34)
    triplets = sample_triplets(catalogue.frame, settings)
    held_out = holdout_labels(catalogue.frame["label"], settings.holdout_classes)
    labels = catalogue.frame["label"].to_numpy()
    assert len(held_out) == 2
    assert not set(labels[triplets.in_split("train")[["query", "positive", "negative"]].to_numpy().ravel()]) & held_out
    result = evaluate_bundle(catalogue, triplets, bundle, Record(tmp_path)).metrics
    rows = np.arange(len(labels))
    model, preprocessing = bundle.load()
    embeddings = embed_catalogue(model, preprocessing, catalogue, rows)
    is_held_out = np.isin(labels, list(held_out))
    queries, gallery = (catalogue.rows(split)[is_held_out[catalogue.rows(split)]] for split in ("test", "train"))
    nearest = gallery[(embeddings[queries] @ embeddings[gallery].T).argmax(axis=1)]
    assert result["unseen.fine.recall_at_1"].value == pytest.approx(float((labels[queries] == labels[nearest]).mean()))
    assert result["unseen.fine.recall_at_1"].count == len(queries)
    assert result["seen.fine.recall_at_1"].count == len(catalogue.rows("test")) - len(queries)
    assert {"baseline.unseen.fine.map_at_r", "gain.unseen.fine.map_at_r"} <= result.keys()


def test_classes_that_only_test_has_can_be_evaluated(synthetic_folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    for number, label in enumerate(sorted(synthetic_folder.glob("*/*/*"))):
        shutil.copytree(label, tmp_path / "f" / ("train" if number < 3 else "test") / label.relative_to(synthetic_folder))
    catalogue, _ = ingest(tmp_path / "f", IngestSettings(), str(tmp_path / "c"), progress=False)
    result = evaluate_bundle(catalogue, sample_triplets(catalogue.frame, SampleSettings()), bundle, Record(tmp_path / "r"))
    assert 0 <= result.metrics["triplet_accuracy"].value <= 1

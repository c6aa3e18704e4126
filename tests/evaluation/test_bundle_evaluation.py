"""A bundle's evaluation beside the frozen net that it started from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.utils.validation import _validate_metric_name

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.evaluation.bundle_evaluation import embed_and_evaluate, evaluate_bundle, group_metrics, save_frozen
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


def _direct(model: EmbeddingModel, catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> Evaluation:
    embeddings = embed_catalogue(model, bundle.load()[1], catalogue, np.arange(len(catalogue.frame)))
    drawn = triplets.of("test")[["query", "positive", "negative"]].to_numpy()
    return evaluate(catalogue.frame, embeddings, catalogue.rows("test"), catalogue.rows("train"), drawn)


def test_test_asks_and_train_answers(evaluation: Evaluation, catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> None:
    expected = _direct(bundle.load()[0], catalogue, triplets, bundle)
    assert {name: evaluation.metrics[name] for name in expected.metrics} == expected.metrics
    assert evaluation.queries[expected.queries.columns].equals(expected.queries)


def test_any_bundle_answers_the_same_queries_row_by_row(
    evaluation: Evaluation, catalogue: Catalogue, triplets: Triplets, bundle: Bundle
) -> None:
    found = embed_and_evaluate(catalogue, triplets, bundle, "champion")
    assert {name: evaluation.metrics[name] for name in found.metrics} == found.metrics
    assert evaluation.queries[found.queries.columns].equals(found.queries)


def test_the_frozen_nets_answers_stand_beside_the_trained_nets(evaluation: Evaluation) -> None:
    for name in ("fine.recall_at_1", "fine.map_at_r"):
        before = evaluation.queries[f"baseline.{name}"]
        assert evaluation.metrics[f"baseline.{name}"].value == pytest.approx(before.mean())
        assert evaluation.metrics[f"gain.{name}"].value == pytest.approx((evaluation.queries[name] - before).mean())


def test_the_baseline_is_the_same_convnet_frozen_and_without_a_head(evaluation: Evaluation, bundle: Bundle, tmp_path: Path) -> None:
    names = {name for name in evaluation.metrics if not name.startswith(("baseline.", "gain."))}
    assert {name.removeprefix("baseline.") for name in evaluation.metrics if name.startswith("baseline.")} == names
    model, preprocessing = save_frozen(bundle, tmp_path).load()
    assert isinstance(model, EmbeddingModel)
    assert model.embedding_dim == model.width
    assert not list(model.head.parameters())
    assert preprocessing == bundle.load()[1]


def test_every_metric_is_reported_with_its_interval(evaluation: Evaluation, record: Record, catalogue: Catalogue) -> None:
    reported = {point.name: point.value for point in record.points}
    for name, metric in evaluation.metrics.items():
        assert (reported[name], reported[f"{name}.low"], reported[f"{name}.high"]) == (metric.value, metric.low, metric.high)
    assert reported["queries"] == len(catalogue.rows("test"))
    groups = group_metrics(evaluation)
    for name, metric in groups.items():
        assert (reported[name], reported[f"{name}.low"], reported[f"{name}.high"]) == (metric.value, metric.low, metric.high)
    assert len(reported) == 3 * (len(evaluation.metrics) + len(groups)) + 1


def _evaluation(labels: list[str], recall: list[float]) -> Evaluation:
    """One in which each query is a group of its own."""
    rows = range(len(labels))
    table = {"row": rows, "label": [f"{label}/one" for label in labels], "coarse": labels, "group": [f"g{row}" for row in rows]}
    return Evaluation({}, pd.DataFrame(table | {"fine.recall_at_1": recall}))


def test_coarse_classes_of_ten_queries_are_reported_in_names_that_mlflow_allows() -> None:
    labels = ["Fruit/Äpfel & Birnen"] * 12 + ["small"] * 9 + ["x" * 300] * 10 + ["lacking"] * 10
    found = group_metrics(_evaluation(labels, [1.0] * 6 + [0.0] * 6 + [1.0] * 19 + [float("nan")] * 10))
    assert list(found) == ["per_group/Fruit/Äpfel _ Birnen.recall_at_1", f"per_group/{'x' * 200}.recall_at_1"]
    first = next(iter(found.values()))
    assert (first.value, first.count) == (0.5, 12)
    assert 0 < first.low < 0.5 < first.high < 1
    for name in found:
        _validate_metric_name(f"{name}.high")


def test_of_many_coarse_classes_the_hundred_largest_are_reported() -> None:
    sizes = {f"c{number}": 10 + number % 13 for number in range(130)}
    labels = [label for label, size in sizes.items() for _ in range(size)]
    found = group_metrics(_evaluation(labels, [1.0] * len(labels)))
    assert len(found) == 100
    assert min(metric.count for metric in found.values()) == sorted(sizes.values())[-100]


def test_its_pictures_are_drawn(evaluation: Evaluation, record: Record) -> None:
    assert len(evaluation.queries)
    assert set(record.figures) == {"neighbor_gallery", "explained", "recall_curve", "confusion", "per_class", "embedding_map"}


def _in_splits(catalogue: Catalogue, split: Callable[[str, int], str]) -> Catalogue:
    """Return the catalogue with the split of each image by its label and its number within it."""
    frame, other = catalogue.frame.copy(), Catalogue(catalogue.uri, catalogue.version)
    numbers = frame.groupby("label").cumcount()
    other.__dict__["frame"] = frame.assign(split=[split(label, n) for label, n in zip(frame["label"], numbers, strict=True)])
    return other


def test_a_test_split_without_triplets_is_evaluated_but_for_them(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    first = catalogue.frame["label"].unique()[:2]
    alone = _in_splits(catalogue, lambda label, n: "test" if label in first and n == 0 else "train")
    triplets = sample_triplets(alone.frame, SampleSettings(), "x")
    assert not len(triplets.of("test"))
    found = evaluate_bundle(alone, triplets, bundle, Record(tmp_path))
    assert found.metrics["fine.recall_at_1"].count == len(found.queries) == 2
    assert found.metrics["triplet_accuracy"].count == 0
    assert found.nested()["triplet_accuracy"] is None


def test_a_test_split_of_other_classes_cannot_be_evaluated(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    first = catalogue.frame["label"].unique()[:2]
    apart = _in_splits(catalogue, lambda label, n: "train" if label not in first else "test" if n == 0 else "aside")
    triplets = sample_triplets(apart.frame, SampleSettings(), "x")
    with pytest.raises(DataError, match="no image of the test split has one of its class"):
        evaluate_bundle(apart, triplets, bundle, Record(tmp_path))
    with pytest.raises(DataError, match="no image of the test split has one of its class"):
        embed_and_evaluate(apart, triplets, bundle, "champion")


def test_one_class_kept_out_of_training_is_not_evaluated_alone(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    triplets = sample_triplets(catalogue.frame, SampleSettings(holdout_classes=0.17))
    assert len(holdout_labels(catalogue.frame["label"], 0.17)) == 1
    found = evaluate_bundle(catalogue, triplets, bundle, Record(tmp_path)).metrics
    assert not [name for name in found if "seen." in name]


def test_a_transformer_is_evaluated_without_the_picture_of_why(catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    transformer = save_untrained(tmp_path / "vit", 0, TINY.model_copy(update={"backbone": "test_vit"}))
    assert evaluate_bundle(catalogue, triplets, transformer, record).metrics["fine.recall_at_1"].count
    assert "explained" not in record.figures


def test_the_gain_is_the_mean_difference_a_query(evaluation: Evaluation) -> None:
    for name in ("fine.recall_at_1", "fine.map_at_r"):
        gain = evaluation.metrics[f"gain.{name}"]
        assert gain.value == pytest.approx(evaluation.metrics[name].value - evaluation.metrics[f"baseline.{name}"].value)
        assert gain.low <= gain.value <= gain.high


def test_classes_kept_out_of_training_are_evaluated_among_themselves(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    settings = SampleSettings(holdout_classes=0.34)
    triplets = sample_triplets(catalogue.frame, settings)
    out = holdout_labels(catalogue.frame["label"], settings.holdout_classes)
    labels = catalogue.frame["label"].to_numpy()
    assert len(out) == 2
    assert not set(labels[triplets.of("train")[["query", "positive", "negative"]].to_numpy().ravel()]) & out
    found = evaluate_bundle(catalogue, triplets, bundle, Record(tmp_path)).metrics
    rows = np.arange(len(labels))
    model, preprocessing = bundle.load()
    embeddings = embed_catalogue(model, preprocessing, catalogue, rows)
    mine = np.isin(labels, list(out))
    queries, gallery = (catalogue.rows(split)[mine[catalogue.rows(split)]] for split in ("test", "train"))
    nearest = gallery[(embeddings[queries] @ embeddings[gallery].T).argmax(axis=1)]
    assert found["unseen.fine.recall_at_1"].value == pytest.approx(float((labels[queries] == labels[nearest]).mean()))
    assert found["unseen.fine.recall_at_1"].count == len(queries)
    assert found["seen.fine.recall_at_1"].count == len(catalogue.rows("test")) - len(queries)
    assert {"baseline.unseen.fine.map_at_r", "gain.unseen.fine.map_at_r"} <= found.keys()

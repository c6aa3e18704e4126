"""A bundle's evaluation beside the frozen net that it started from."""

from pathlib import Path

import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.evaluation.compare import evaluate_bundle, frozen_net
from deeprank.evaluation.evaluate import Evaluation, evaluate
from deeprank.model.bundle import Bundle
from deeprank.model.embedding import embed_catalogue
from deeprank.model.network import EmbeddingNet
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets, withheld_labels


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return Record(tmp_path_factory.mktemp("record"))


@pytest.fixture(scope="module")
def evaluation(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, record: Record) -> Evaluation:
    return evaluate_bundle(catalogue, triplets, bundle, record)


def _direct(net: EmbeddingNet, catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> Evaluation:
    embeddings = embed_catalogue(net, bundle.load()[1], catalogue, np.arange(len(catalogue.frame)))
    drawn = triplets.of("test")[["query", "positive", "negative"]].to_numpy()
    return evaluate(catalogue.frame, embeddings, catalogue.rows("test"), catalogue.rows("train"), drawn)


def test_test_asks_and_train_answers(evaluation: Evaluation, catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> None:
    expected = _direct(bundle.load()[0], catalogue, triplets, bundle)
    assert {name: evaluation.metrics[name] for name in expected.metrics} == expected.metrics
    assert evaluation.queries.equals(expected.queries)


def test_the_baseline_is_the_same_convnet_frozen_and_without_a_head(evaluation: Evaluation, bundle: Bundle) -> None:
    names = {name for name in evaluation.metrics if not name.startswith(("baseline.", "gain."))}
    assert {name.removeprefix("baseline.") for name in evaluation.metrics if name.startswith("baseline.")} == names
    net = frozen_net(bundle)
    assert net.dimensions == net.width
    assert not list(net.head.parameters())


def test_every_metric_is_reported_with_its_interval(evaluation: Evaluation, record: Record, catalogue: Catalogue) -> None:
    reported = {point.name: point.value for point in record.points}
    for name, metric in evaluation.metrics.items():
        assert (reported[name], reported[f"{name}.low"], reported[f"{name}.high"]) == (metric.value, metric.low, metric.high)
    assert reported["queries"] == len(catalogue.rows("test"))
    assert len(reported) == 3 * len(evaluation.metrics) + 1


def test_its_pictures_are_drawn(evaluation: Evaluation, record: Record) -> None:
    assert len(evaluation.queries)
    assert set(record.figures) == {"neighbour_gallery", "per_class", "embedding_map"}


def test_a_test_split_without_triplets_cannot_be_evaluated(
    catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    train = Triplets(triplets.of("train"), triplets.fingerprint)
    with pytest.raises(DataError, match="the test split has no two photographs of one class"):
        evaluate_bundle(catalogue, train, bundle, Record(tmp_path))


def test_the_gain_is_the_mean_difference_a_query(evaluation: Evaluation) -> None:
    for name in ("fine.recall_at_1", "fine.map_at_r"):
        gain = evaluation.metrics[f"gain.{name}"]
        assert gain.value == pytest.approx(evaluation.metrics[name].value - evaluation.metrics[f"baseline.{name}"].value)
        assert gain.low <= gain.value <= gain.high


def test_classes_kept_out_of_training_are_evaluated_among_themselves(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    settings = SampleSettings(withheld=0.34)
    triplets = sample_triplets(catalogue.frame, settings)
    out = withheld_labels(catalogue.frame["label"], settings.withheld)
    labels = catalogue.frame["label"].to_numpy()
    assert len(out) == 2
    assert not set(labels[triplets.of("train")[["query", "positive", "negative"]].to_numpy().ravel()]) & out
    found = evaluate_bundle(catalogue, triplets, bundle, Record(tmp_path)).metrics
    rows = np.arange(len(labels))
    net, preprocessing = bundle.load()
    embeddings = embed_catalogue(net, preprocessing, catalogue, rows)
    mine = np.isin(labels, list(out))
    queries, gallery = (catalogue.rows(split)[mine[catalogue.rows(split)]] for split in ("test", "train"))
    nearest = gallery[(embeddings[queries] @ embeddings[gallery].T).argmax(axis=1)]
    assert found["unseen.fine.recall_at_1"].value == pytest.approx(float((labels[queries] == labels[nearest]).mean()))
    assert found["unseen.fine.recall_at_1"].count == len(queries)
    assert found["seen.fine.recall_at_1"].count == len(catalogue.rows("test")) - len(queries)
    assert {"baseline.unseen.fine.map_at_r", "gain.unseen.fine.map_at_r"} <= found.keys()

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
from deeprank.triplets.sampling import Triplets


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
    names = {name for name in evaluation.metrics if not name.startswith("baseline.")}
    assert {name.removeprefix("baseline.") for name in evaluation.metrics if name.startswith("baseline.")} == names
    net = frozen_net(bundle)
    assert net.dimensions == net.backbone.num_features
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

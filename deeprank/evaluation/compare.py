"""The evaluation of a trained net beside the same net frozen, with its pictures."""

import dataclasses

import numpy as np
import numpy.typing as npt

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.evaluation.evaluate import Evaluation, evaluate
from deeprank.evaluation.figures import embedding_map, neighbour_gallery, per_class_bars
from deeprank.model.bundle import Bundle
from deeprank.model.embedding import embed_catalogue
from deeprank.model.network import EmbeddingNet, NetworkSettings
from deeprank.reporting import Reporter
from deeprank.triplets.sampling import Triplets


def evaluate_bundle(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, reporter: Reporter) -> Evaluation:
    """Evaluate a trained net on the test split, gallery train, and report metrics, pictures and what training bought.

    The frozen net of the same ConvNet, without a head, answers the same queries: its metrics are named baseline.*.

    Raises:
        DataError: the test split has no triplet.

    """
    queries, gallery = catalogue.rows("test"), catalogue.rows("train")
    drawn = triplets.of("test")[["query", "positive", "negative"]].to_numpy()
    if not len(drawn):
        raise DataError("the test split has no two photographs of one class beside another class: nothing can be evaluated")
    rows = np.concatenate([queries, gallery])
    net, preprocessing = bundle.load()

    def run(net: EmbeddingNet, what: str) -> tuple[Evaluation, npt.NDArray[np.float32]]:
        embeddings = np.zeros((len(catalogue.frame), net.dimensions), dtype=np.float32)
        embeddings[rows] = embed_catalogue(net, preprocessing, catalogue, rows, f"embedding, {what}")
        return evaluate(catalogue.frame, embeddings, queries, gallery, drawn), embeddings

    baseline, _ = run(frozen_net(bundle), "frozen net")
    trained, embeddings = run(net, "trained net")
    metrics = trained.metrics | {f"baseline.{name}": metric for name, metric in baseline.metrics.items()}
    for name, metric in metrics.items():
        reporter.metric(name, metric.value)
        reporter.metric(f"{name}.low", metric.low)
        reporter.metric(f"{name}.high", metric.high)
    reporter.metric("queries", len(queries))
    result = dataclasses.replace(trained, metrics=metrics)
    reporter.figure("neighbour_gallery", neighbour_gallery(catalogue, embeddings, result.queries, gallery))
    reporter.figure("per_class", per_class_bars(result.per_class()))
    reporter.figure("embedding_map", embedding_map(embeddings[queries], catalogue.frame["label"].iloc[queries].tolist()))
    return result


def frozen_net(bundle: Bundle) -> EmbeddingNet:
    """Return the net as it was before training, without a head."""
    return EmbeddingNet(NetworkSettings.model_validate(bundle.config["started_from"]).model_copy(update={"dimensions": 0}))

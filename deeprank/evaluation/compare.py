"""The evaluation of a trained net beside the same net frozen, with its pictures."""

import dataclasses

import numpy as np
import numpy.typing as npt

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.evaluation.evaluate import Evaluation, evaluate
from deeprank.evaluation.figures import embedding_map, neighbour_gallery, per_class_bars
from deeprank.evaluation.intervals import Estimate, estimate
from deeprank.model.bundle import Bundle
from deeprank.model.embedding import embed_catalogue
from deeprank.model.network import Embedder, EmbeddingNet, NetworkSettings
from deeprank.reporting import Reporter
from deeprank.triplets.sampling import Triplets

GAINS = ("fine.recall_at_1", "fine.map_at_r")


def evaluate_bundle(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, reporter: Reporter) -> Evaluation:
    """Evaluate a trained net on the test split, gallery train, and report metrics, pictures and what training bought.

    The frozen net of the same ConvNet, without a head, answers the same queries: its metrics are named baseline.*, and
    gain.* is the mean difference a query. Where classes were kept out of training, seen.* and unseen.* are the metrics of
    either kind of class among themselves.

    Raises:
        DataError: the test split has no triplet.

    """
    queries, gallery = catalogue.rows("test"), catalogue.rows("train")
    drawn = triplets.of("test")[["query", "positive", "negative"]].to_numpy()
    if not len(drawn):
        raise DataError("the test split has no two photographs of one class beside another class: nothing can be evaluated")
    rows = np.concatenate([queries, gallery])
    labels = catalogue.frame["label"]
    trained_on = np.unique(triplets.of("train")[["query", "positive", "negative"]].to_numpy())
    unseen = ~labels.isin(labels.iloc[trained_on]).to_numpy() & labels.isin(labels.iloc[gallery]).to_numpy()
    kinds = {"": np.ones(len(labels), dtype=bool)} | ({"seen.": ~unseen, "unseen.": unseen} if unseen[queries].any() else {})
    net, preprocessing = bundle.load()

    def run(net: Embedder, what: str) -> tuple[dict[str, Evaluation], npt.NDArray[np.float32]]:
        embeddings = np.zeros((len(catalogue.frame), net.dimensions), dtype=np.float32)
        embeddings[rows] = embed_catalogue(net, preprocessing, catalogue, rows, f"embedding, {what}")
        return {
            kind: evaluate(catalogue.frame, embeddings, queries[of[queries]], gallery[of[gallery]], drawn[of[drawn].all(axis=1)])
            for kind, of in kinds.items()
        }, embeddings

    baseline, _ = run(frozen_net(bundle), "frozen net")
    trained, embeddings = run(net, "trained net")
    metrics: dict[str, Estimate] = {}
    for kind, found in trained.items():
        before = baseline[kind]
        metrics |= {f"{kind}{name}": metric for name, metric in found.metrics.items()}
        metrics |= {f"baseline.{kind}{name}": metric for name, metric in before.metrics.items()}
        groups = np.unique(catalogue.frame["group"].iloc[found.queries["row"]], return_inverse=True)[1]
        for name in GAINS:
            metrics[f"gain.{kind}{name}"] = estimate((found.queries[name] - before.queries[name]).to_numpy(), groups)
    for name, metric in metrics.items():
        reporter.metric(name, metric.value)
        reporter.metric(f"{name}.low", metric.low)
        reporter.metric(f"{name}.high", metric.high)
    reporter.metric("queries", len(queries))
    result = dataclasses.replace(trained[""], metrics=metrics)
    reporter.figure("neighbour_gallery", neighbour_gallery(catalogue, embeddings, result.queries, gallery))
    reporter.figure("per_class", per_class_bars(result.per_class()))
    reporter.figure("embedding_map", embedding_map(embeddings[queries], catalogue.frame["label"].iloc[queries].tolist()))
    return result


def frozen_net(bundle: Bundle) -> EmbeddingNet:
    """Return the net as it was before training, without a head."""
    started_from = NetworkSettings.model_validate(bundle.config["started_from"])
    return EmbeddingNet(NetworkSettings(backbone=started_from.backbone, weights=started_from.weights, dimensions=0))

"""The evaluation of a trained net beside the same net frozen, with its pictures."""

import logging
import re
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError, ModelError
from deeprank.evaluation.evaluation import METRIC, Evaluation, evaluate
from deeprank.evaluation.explain import explained
from deeprank.evaluation.intervals import Estimate, estimate
from deeprank.evaluation.neighbors import first_hit_ranks
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import ModelSettings, create_model
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.plotting.evaluation import confusion, embedding_map, neighbor_gallery, per_class_bars, recall_curve
from deeprank.reporting import Reporter
from deeprank.triplets.sampling import Triplets

logger = logging.getLogger(__name__)

GAINS = ("fine.recall_at_1", "fine.map_at_r", "ndcg_at_10")
# A coarse class is reported on its own from so many queries, and the largest so many of them.
GROUP_QUERIES, GROUPS = 10, 100
# What MLflow does not take in a metric's name; it takes letters of any alphabet.
FORBIDDEN = re.compile(r"[^\w. :/-]")


def evaluate_bundle(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, reporter: Reporter) -> Evaluation:
    """Evaluate a trained net on the test split, gallery train, and report metrics, pictures and what training bought.

    The frozen net of the same ConvNet, without a head, answers the same queries: its metrics are named baseline.*, and
    gain.* is the mean difference a query. Where classes were kept out of training, seen.* and unseen.* are the metrics of
    either kind of class among themselves. The metrics of coarse classes are reported too, see `group_metrics`.

    Raises:
        DataError: no image of the test split has one of its class beside it or in the train split.

    """
    queries, gallery, drawn = catalogue.rows("test"), catalogue.rows("train"), _test_triplets(catalogue, triplets)
    labels = catalogue.frame["label"]
    trained_on = np.unique(triplets.of("train")[["query", "positive", "negative"]].to_numpy())
    unseen = ~labels.isin(labels.iloc[trained_on]).to_numpy() & labels.isin(labels.iloc[gallery]).to_numpy()
    kinds = {"": np.ones(len(labels), dtype=bool)}
    # Of one class alone, whatever is found is right.
    if unseen[queries].any() and labels.iloc[gallery[unseen[gallery]]].nunique() > 1:
        kinds |= {kind: of for kind, of in {"seen.": ~unseen, "unseen.": unseen}.items() if of[queries].any()}

    def run(bundle: Bundle, what: str) -> tuple[dict[str, Evaluation], npt.NDArray[np.float32]]:
        embeddings = _embed(catalogue, bundle, what)
        return {kind: _evaluate(catalogue, drawn, embeddings, of) for kind, of in kinds.items()}, embeddings

    with tempfile.TemporaryDirectory() as folder:
        baseline, frozen = run(save_frozen(bundle, Path(folder)), "frozen net")
    trained, embeddings = run(bundle, "trained net")
    metrics: dict[str, Estimate] = {}
    for kind, found in trained.items():
        before = baseline[kind]
        metrics |= {f"{kind}{name}": metric for name, metric in found.metrics.items()}
        metrics |= {f"baseline.{kind}{name}": metric for name, metric in before.metrics.items()}
        groups = np.unique(found.queries["group"], return_inverse=True)[1]
        for name in GAINS:
            metrics[f"gain.{kind}{name}"] = estimate((found.queries[name] - before.queries[name]).to_numpy(), groups)
    before = baseline[""].queries
    table = trained[""].queries.assign(**{f"baseline.{name}": before[name] for name in GAINS})
    result = Evaluation(metrics, table)
    for name, metric in (metrics | group_metrics(result)).items():
        reporter.metric(name, metric.value)
        reporter.metric(f"{name}.low", metric.low)
        reporter.metric(f"{name}.high", metric.high)
    reporter.metric("queries", len(queries))
    reporter.figure("neighbor_gallery", neighbor_gallery(catalogue, embeddings, result.queries, gallery))
    try:
        reporter.figure("explained", explained(catalogue, bundle, result.queries, embeddings))
    except ModelError as error:
        # A transformer: all else can be said of it.
        logger.info("no picture of why answers were given: %s", error)
    first_hits = {
        name: first_hit_ranks(of, labels.tolist(), queries, gallery) for name, of in {"trained": embeddings, "frozen": frozen}.items()
    }
    reporter.figure("recall_curve", recall_curve(first_hits))
    reporter.figure("confusion", confusion(result.queries, labels.iloc[result.queries["nearest"]].tolist()))
    reporter.figure("per_class", per_class_bars(result.per_class()))
    reporter.figure("embedding_map", embedding_map(embeddings[queries], labels.iloc[queries].tolist()))
    return result


def embed_and_evaluate(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, what: str) -> Evaluation:
    """Evaluate any bundle on the catalogue's test split, gallery train; row by row its queries are those of `evaluate_bundle`.

    Args:
        catalogue: today's, which the bundle need not have been trained on.
        triplets: of the catalogue.
        bundle: what embeds.
        what: name of the net, for the progress bar.

    Raises:
        DataError: no image of the test split has one of its class beside it or in the train split.
        ModelError: the bundle cannot be loaded.

    """
    drawn = _test_triplets(catalogue, triplets)
    return _evaluate(catalogue, drawn, _embed(catalogue, bundle, what), np.ones(len(catalogue.frame), dtype=bool))


def group_metrics(evaluation: Evaluation) -> dict[str, Estimate]:
    """Return recall@1 of the 100 largest coarse classes that have 10 queries, named per_group/<label>.recall_at_1 in the
    characters and the length that MLflow allows.
    """  # noqa: D205
    table = evaluation.per_group()
    table = (
        table[(table["queries"] >= GROUP_QUERIES) & table[METRIC].notna()]
        .sort_values("queries", ascending=False, kind="stable")
        .head(GROUPS)
    )
    return {
        f"per_group/{FORBIDDEN.sub('_', row['label'])[:200]}.recall_at_1": Estimate(
            row[METRIC], row[f"{METRIC}.low"], row[f"{METRIC}.high"], row["queries"]
        )
        for row in table.to_dict("records")
    }


def _test_triplets(catalogue: Catalogue, triplets: Triplets) -> npt.NDArray[np.int64]:
    labels, drawn = catalogue.frame["label"], triplets.of("test")[["query", "positive", "negative"]].to_numpy()
    if not len(drawn) and not labels.iloc[catalogue.rows("test")].isin(labels.iloc[catalogue.rows("train")]).any():
        raise DataError("no image of the test split has one of its class beside it or in the train split: nothing can be evaluated")
    return drawn


def _embed(catalogue: Catalogue, bundle: Bundle, what: str) -> npt.NDArray[np.float32]:
    """Embed the test and train splits; other rows stay zeros."""
    rows = np.concatenate([catalogue.rows("test"), catalogue.rows("train")])
    found = catalogue_embeddings(bundle, catalogue, rows, f"embedding, {what}")
    embeddings = np.zeros((len(catalogue.frame), found.shape[1]), dtype=np.float32)
    embeddings[rows] = found
    return embeddings


def _evaluate(
    catalogue: Catalogue, drawn: npt.NDArray[np.int64], embeddings: npt.NDArray[np.float32], of: npt.NDArray[np.bool_]
) -> Evaluation:
    """Evaluate on those rows of the test and train splits that are marked."""
    queries, gallery = catalogue.rows("test"), catalogue.rows("train")
    return evaluate(catalogue.frame, embeddings, queries[of[queries]], gallery[of[gallery]], drawn[of[drawn].all(axis=1)])


def save_frozen(bundle: Bundle, folder: Path) -> Bundle:
    """Write the net as it was before training, without a head, to a folder.

    As a bundle it has a table of embeddings, which every training that starts from the same ConvNet finds.
    """
    started_from = ModelSettings.model_validate(bundle.config["started_from"])
    frozen = ModelSettings(backbone=started_from.backbone, weights=started_from.weights, embedding_dim=0, pretrained_share=0)
    return Bundle.save(folder, create_model(frozen), frozen, bundle.load()[1], {})

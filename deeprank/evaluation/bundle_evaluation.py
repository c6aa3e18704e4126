"""The evaluation of a trained model beside the frozen baseline, with its figures."""

import logging
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.evaluation.embedded import NOVEL_QUERIES, Embedded, embed_images, evaluate_embedded
from deeprank.evaluation.evaluation import MAIN_METRIC, Evaluation, empty_evaluation
from deeprank.evaluation.explain import explain_first_neighbors
from deeprank.evaluation.intervals import Estimate, estimate
from deeprank.evaluation.neighbors import first_hit_ranks, neighbors
from deeprank.evaluation.other_kind import evaluate_other_kind, queries_and_gallery, result_in_words
from deeprank.evaluation.queries import evaluation_queries
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import ModelSettings, create_model
from deeprank.plotting.evaluation import confusion, embedding_map, neighbor_gallery, per_class_bars, recall_curve
from deeprank.plotting.explanation import explained_pairs
from deeprank.reporting import Reporter
from deeprank.row_numbers import CatalogueRows
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets

logger = logging.getLogger(__name__)

GAIN_METRICS = ("fine.recall_at_1", "fine.map_at_r", "ndcg_at_10")
# Class groups with fewer queries are not reported, and of the others the largest only.
MIN_CLASS_GROUP_QUERIES, MAX_CLASS_GROUPS = 10, 100
MAX_LABEL_LENGTH = 200
# Characters that MLflow does not allow in the name of a metric; letters of any alphabet are allowed.
NOT_IN_METRIC_NAMES = re.compile(r"[^\w. :/-]")
MAX_RECALL_RANK = 50
BASELINE_NAME, TRAINED_NAME = "frozen baseline", "trained model"
GALLERY_NEIGHBORS = 6
NOTHING_EVALUATED = (
    "nothing can be evaluated: no image of the test split has another image of its class in the test or train split; "
    "add images, or change ingest.shares"
)


def evaluate_bundle(
    catalogue: Catalogue, triplets: Triplets, bundle: Bundle, reporter: Reporter, other: Catalogue | None = None
) -> Evaluation:
    """Evaluate a trained model and the frozen baseline on the test split with train as gallery; report metrics and figures.

    The frozen baseline is the same pretrained ConvNet without a head, on the same queries. Its metrics are named baseline.*;
    gain.* is the mean difference per query. Where classes were held out of training, seen.* and unseen.* are the metrics of the
    classes trained on and of the classes held out, each with a gallery of its own classes only. other.* are the metrics on images
    of another kind, see `evaluate_other_kind`. For metrics of class groups see `class_group_metrics`. Where no query of the test
    split can be evaluated, its metrics are absent, and the note evaluation.reason says why.
    """
    num_queries, num_images = len(evaluation_queries(catalogue)), len(catalogue.rows("test"))
    reporter.metric("queries", num_queries)
    if num_queries < num_images:
        reporter.note("evaluation.sample", f"{num_queries:,} of the {num_images:,} test images are queries, of each class the same share")
    with tempfile.TemporaryDirectory() as folder:
        frozen = save_frozen_baseline(bundle, Path(folder))
        result = _evaluate_test_split(catalogue, triplets, bundle, frozen, reporter)
        if other is not None:
            result = _add_other_kind(result, other, bundle, frozen, reporter)
    for name, metric in (result.metrics | class_group_metrics(result)).items():
        reporter.metric(name, metric.value)
        reporter.metric(f"{name}.low", metric.low)
        reporter.metric(f"{name}.high", metric.high)
    return result


def _evaluate_test_split(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, frozen: Bundle, reporter: Reporter) -> Evaluation:
    """Evaluate both models on the test split; report figures, or why nothing can be evaluated."""
    test_triplets = _test_triplets(catalogue, triplets)
    if not _can_evaluate(catalogue, test_triplets):
        logger.warning(NOTHING_EVALUATED)
        reporter.note("evaluation.reason", NOTHING_EVALUATED)
        return empty_evaluation()
    subsets = _subsets(catalogue, triplets)

    def run(bundle: Bundle, model_name: str) -> tuple[dict[str, Evaluation], Embedded]:
        embedded = _embed(catalogue, bundle, model_name)
        return {prefix: _evaluate_subset(catalogue, test_triplets, embedded, mask) for prefix, mask in subsets.items()}, embedded

    baseline, baseline_embedded = run(frozen, BASELINE_NAME)
    trained, embedded = run(bundle, TRAINED_NAME)
    table = trained[""].queries.assign(**{f"baseline.{name}": baseline[""].queries[name] for name in GAIN_METRICS})
    result = Evaluation(_compare(trained, baseline), table)
    _report_figures(catalogue, bundle, result, {"trained": embedded, "frozen": baseline_embedded}, reporter)
    return result


def _add_other_kind(result: Evaluation, other: Catalogue, bundle: Bundle, frozen: Bundle, reporter: Reporter) -> Evaluation:
    """Add the evaluation of both models on images of another kind; report the number of queries and the result in words."""
    baseline, trained = evaluate_other_kind(other, frozen, BASELINE_NAME), evaluate_other_kind(other, bundle, TRAINED_NAME)
    metrics = _compare({"other.": trained}, {"other.": baseline})
    in_words = result_in_words(metrics, len(queries_and_gallery(other)[1]))
    logger.info(in_words)
    reporter.metric("other.queries", len(trained.queries))
    reporter.note("other.result", in_words)
    return replace(result, metrics=result.metrics | metrics, other_queries=trained.queries)


def embed_and_evaluate(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, model_name: str) -> Evaluation:
    """Evaluate any bundle on the test split with train as gallery; its query table has the rows of `evaluate_bundle`'s.

    Args:
        catalogue: the current one, which may differ from the one that the bundle was trained on.
        triplets: of the catalogue.
        bundle: the model.
        model_name: for the progress bar.

    Returns:
        An evaluation; it is empty where no query can be evaluated.

    Raises:
        ModelError: the bundle cannot be loaded.

    """
    test_triplets = _test_triplets(catalogue, triplets)
    if not _can_evaluate(catalogue, test_triplets):
        return empty_evaluation()
    all_rows = np.ones(len(catalogue.frame), dtype=bool)
    return _evaluate_subset(catalogue, test_triplets, _embed(catalogue, bundle, model_name), all_rows)


def class_group_metrics(evaluation: Evaluation) -> dict[str, Estimate]:
    """Return recall@1 of the 100 largest class groups (coarse classes) with at least 10 queries.

    Returns:
        By name, per_class_group/<class group>.recall_at_1, in the characters and the length that MLflow allows.

    """
    table = evaluation.per_class_group()
    reportable = table[(table["queries"] >= MIN_CLASS_GROUP_QUERIES) & table[MAIN_METRIC].notna()]
    largest = reportable.sort_values("queries", ascending=False, kind="stable").head(MAX_CLASS_GROUPS)
    return {
        f"per_class_group/{NOT_IN_METRIC_NAMES.sub('_', row['class_group'])[:MAX_LABEL_LENGTH]}.recall_at_1": Estimate(
            row[MAIN_METRIC], row[f"{MAIN_METRIC}.low"], row[f"{MAIN_METRIC}.high"], row["queries"]
        )
        for row in largest.to_dict("records")
    }


def save_frozen_baseline(bundle: Bundle, folder: Path) -> Bundle:
    """Write the pretrained model that the training of a bundle started from, without a head, to a folder.

    As a bundle it has an embedding table, which all trainings that start from the same pretrained ConvNet share.
    """
    initial_model = ModelSettings.model_validate(bundle.config["initial_model"])
    settings = ModelSettings(backbone=initial_model.backbone, weights=initial_model.weights, embedding_dim=0, pretrained_share=0)
    return Bundle.save(folder, create_model(settings), settings, bundle.load()[1], {})


def _subsets(catalogue: Catalogue, triplets: Triplets) -> dict[str, npt.NDArray[np.bool_]]:
    """Return a mask of the frame's rows for each metric prefix: all classes, and seen. and unseen. where classes were held out."""
    labels, queries, gallery = catalogue.frame["label"], evaluation_queries(catalogue), catalogue.rows("train")
    train_rows = np.unique(triplets.in_split("train")[["query", "positive", "negative"]].to_numpy())
    unseen = ~labels.isin(labels.iloc[train_rows]).to_numpy() & labels.isin(labels.iloc[gallery]).to_numpy()
    subsets = {"": np.ones(len(labels), dtype=bool)}
    # With a single unseen class every neighbor would be correct.
    if unseen[queries].any() and labels.iloc[gallery[unseen[gallery]]].nunique() > 1:
        subsets |= {prefix: mask for prefix, mask in {"seen.": ~unseen, "unseen.": unseen}.items() if mask[queries].any()}
    return subsets


def _compare(trained: dict[str, Evaluation], baseline: dict[str, Evaluation]) -> dict[str, Estimate]:
    """Return the metrics of both models and the gains, for each subset of the classes."""
    metrics: dict[str, Estimate] = {}
    for prefix, evaluation in trained.items():
        before = baseline[prefix]
        metrics |= {f"{prefix}{name}": metric for name, metric in evaluation.metrics.items()}
        # The frozen baseline was trained on none of the images, so none is novel or familiar to it.
        metrics |= {f"baseline.{prefix}{name}": metric for name, metric in before.metrics.items() if name != NOVEL_QUERIES}
        duplicate_groups = np.unique(evaluation.queries["duplicate_group"], return_inverse=True)[1]
        for name in GAIN_METRICS:
            gain = (evaluation.queries[name] - before.queries[name]).to_numpy()
            metrics[f"gain.{prefix}{name}"] = estimate(gain, duplicate_groups)
    return metrics


def _report_figures(
    catalogue: Catalogue, bundle: Bundle, evaluation: Evaluation, embedded_by: dict[str, Embedded], reporter: Reporter
) -> None:
    """Report the figures of an evaluation; `embedded_by` holds the embeddings by model, the trained model's first."""
    table, queries, gallery = evaluation.queries, evaluation_queries(catalogue), catalogue.rows("train")
    labels, trained = catalogue.frame["label"], next(iter(embedded_by.values()))
    neighbors_of = {name: neighbors(by.queries[queries], by.images, gallery, MAX_RECALL_RANK) for name, by in embedded_by.items()}
    hit_ranks = {name: first_hit_ranks(rows, labels.tolist(), queries, gallery) for name, rows in neighbors_of.items()}
    first_neighbors = next(iter(neighbors_of.values()))[:, :GALLERY_NEIGHBORS]
    similarities = np.einsum("qd,qkd->qk", trained.queries[queries], trained.images[first_neighbors], dtype=np.float64)
    distances = np.sqrt(np.maximum(2 - 2 * similarities, 0))
    reporter.figure("recall_curve", recall_curve(hit_ranks, MAX_RECALL_RANK))
    reporter.figure("confusion", confusion(table, labels.iloc[table["nearest"]].tolist()))
    reporter.figure("neighbor_gallery", neighbor_gallery(catalogue, table, first_neighbors, distances))
    try:
        correct, wrong = explain_first_neighbors(catalogue, bundle, table, trained.images)
    except ModelError as error:
        # A transformer: all other figures are possible.
        logger.info("the figure `explained` is left out: %s", error)
    else:
        num_correct, num_wrong = (int((table[MAIN_METRIC] == hit).sum()) for hit in (1, 0))
        reporter.figure("explained", explained_pairs(catalogue, correct, wrong, num_correct, num_wrong))
    reporter.figure("per_class", per_class_bars(evaluation.per_class()))
    reporter.figure("embedding_map", embedding_map(trained.images[queries], labels.iloc[queries].tolist()))


def _test_triplets(catalogue: Catalogue, triplets: Triplets) -> npt.NDArray[np.int64]:
    """Return the triplets (t, 3) of the test split; of a sample of queries, triplets that are drawn among them."""
    queries = evaluation_queries(catalogue)
    if len(queries) == len(catalogue.rows("test")):
        return triplets.in_split("test")[["query", "positive", "negative"]].to_numpy()
    drawn = sample_triplets(catalogue.frame[["label"]].iloc[queries].assign(split="test"), SampleSettings()).frame
    return queries[drawn[["query", "positive", "negative"]].to_numpy()]


def _can_evaluate(catalogue: Catalogue, test_triplets: npt.NDArray[np.int64]) -> bool:
    """Return whether any image of the test split has another image of its class in the test or train split."""
    labels = catalogue.frame["label"]
    return len(test_triplets) > 0 or bool(labels.iloc[evaluation_queries(catalogue)].isin(labels.iloc[catalogue.rows("train")]).any())


def _embed(catalogue: Catalogue, bundle: Bundle, model_name: str) -> Embedded:
    return embed_images(catalogue, bundle, evaluation_queries(catalogue), catalogue.rows("train"), model_name)


def _evaluate_subset(catalogue: Catalogue, triplets: npt.NDArray[np.int64], embedded: Embedded, mask: npt.NDArray[np.bool_]) -> Evaluation:
    """Evaluate on the rows of the test and train splits that a mask of the frame selects."""
    queries, gallery = (CatalogueRows(rows[mask[rows]]) for rows in (evaluation_queries(catalogue), catalogue.rows("train")))
    return evaluate_embedded(catalogue.frame, embedded, queries, gallery, triplets[mask[triplets].all(axis=1)])

"""Drift: how far new images of a catalogue are from those that the champion was trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import false_discovery_control

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, SearchModel
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.monitoring.two_sample_test import NUM_PERMUTATIONS, Points, two_sample_test
from deeprank.plotting.drift import class_drift_bars, farthest_pairs
from deeprank.reporting import Reporter
from deeprank.row_numbers import CatalogueRows
from deeprank.search.index import Index

# Significance level of the adjusted p-values.
ALPHA = 0.05
# With fewer images in either sample, a p-value says little.
MIN_TEST_IMAGES = 8
MAX_NAMED_CLASSES = 20

PRETRAINED_FEATURES = "features of the pretrained backbone"
FULL_EMBEDDING = "full embedding: where a model has memorized its train images, unchanged classes can seem to drift"


@dataclass(frozen=True)
class Drift:
    """New images compared with the reference: the champion's train images.

    Attributes:
        new_images: their number.
        statistic, p_value: of the two-sample test within the shared classes; NaN where either side has fewer than 8 images of them.
        per_class: columns label, new and reference (numbers of images), statistic, p_value and p_adjusted (Benjamini & Hochberg), a
            row for each class with 8 or more images on both sides, greatest statistic first.
        new_classes, vanished_classes: those of the current catalogue only, and those of the champion's only.
        nearest, distances: (new_images,) for each new image the position of the nearest reference image, and its Euclidean distance.

    """

    new_images: int
    statistic: float
    p_value: float
    per_class: pd.DataFrame
    new_classes: list[str]
    vanished_classes: list[str]
    nearest: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]

    @property
    def num_drifted_classes(self) -> int:
        """Number of tested classes whose adjusted p-value is significant."""
        return int((self.per_class["p_adjusted"] < ALPHA).sum())


def compute_drift(
    reference: npt.NDArray[np.float32],
    reference_labels: Sequence[str],
    new: npt.NDArray[np.float32],
    new_labels: Sequence[str],
    reference_classes: Iterable[str],
    current_classes: Iterable[str],
    seed: int = 0,
) -> Drift:
    """Compare the embeddings of new images with those of reference images.

    Args:
        reference: (m, d) embeddings of the champion's train images, m > 0.
        reference_labels: (m,) their classes.
        new: (n, d) embeddings of the new images by the champion's model.
        new_labels: (n,) their classes.
        reference_classes: all classes of the champion's catalogue.
        current_classes: all classes of the current catalogue.
        seed: of the tests.

    """
    before, now = set(reference_classes), set(current_classes)
    labels = [np.asarray(names, dtype=object) for names in (reference_labels, new_labels)]
    # Only within the shared classes: new images of few classes are no drift, and new classes are reported by name.
    # pandas hashes the labels; NumPy would compare each with each.
    shared = [pd.Series(names, dtype=object).isin(set(other)).to_numpy() for names, other in zip(labels, labels[::-1], strict=True)]
    x, y = reference[shared[0]], new[shared[1]]
    statistic, p_value = float("nan"), float("nan")
    if min(len(x), len(y)) >= MIN_TEST_IMAGES:
        statistic, p_value = two_sample_test(x, y, seed, labels=(labels[0][shared[0]], labels[1][shared[1]]))
    nearest = faiss.knn(new, reference, 1)[1][:, 0] if len(new) else np.empty(0, dtype=np.int64)
    return Drift(
        new_images=len(new),
        statistic=statistic,
        p_value=p_value,
        per_class=class_tests(reference, reference_labels, new, new_labels, seed),
        new_classes=sorted(now - before),
        vanished_classes=sorted(before - now),
        nearest=nearest,
        distances=np.linalg.norm(reference[nearest].astype(np.float64) - new, axis=1),
    )


def class_tests(reference: Points, reference_labels: Sequence[str], new: Points, new_labels: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Test each class that has 8 or more images on both sides; returns `Drift.per_class`, arguments as of `compute_drift`."""
    rows_x, rows_y = (
        pd.Series(names, dtype=object).groupby(np.asarray(names, dtype=object)).indices for names in (reference_labels, new_labels)
    )
    tested = [label for label in sorted(rows_y) if min(len(rows_x.get(label, ())), len(rows_y[label])) >= MIN_TEST_IMAGES]
    # With fewer permutations, the smallest possible p-value times the number of classes could not be significant.
    permutations = max(NUM_PERMUTATIONS, round(2 * len(tested) / ALPHA))
    rows = []
    for label in tested:
        x, y = reference[rows_x[label]], new[rows_y[label]]
        rows.append((label, len(y), len(x), *two_sample_test(x, y, seed, permutations)))
    table = pd.DataFrame(rows, columns=["label", "new", "reference", "statistic", "p_value"])
    table["p_adjusted"] = false_discovery_control(table["p_value"]) if rows else []
    return table.sort_values("statistic", ascending=False, kind="stable").reset_index(drop=True)


def pretrained_embeddings(model: Embedder, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the columns of embeddings (n, d) from the pretrained backbone, of unit length; all columns where the model has none.

    The learned columns place train images closer together than other images of their class, which the test would take for drift.
    """
    return model.pretrained_embeddings(embeddings) if isinstance(model, SearchModel) else embeddings


def measure_drift(
    catalogue: Catalogue, bundle: Bundle, index: Index, reporter: Reporter, reference_ids: Sequence[str] | None = None
) -> Drift:
    """Compare the catalogue's images that are new to the champion with the champion's train images, and report the result.

    Reports the metrics drift.new_images, .new_classes and .vanished_classes, the latter two with their names as notes; where the
    shared classes have 8 or more images on both sides, the metrics drift.mmd, .p_value and .classes_drifted; and the figures.

    Args:
        catalogue: the current one.
        bundle: of the champion.
        index: of the champion.
        reporter: that receives the above.
        reference_ids: ids of the images that the catalogue had when the champion was trained; None: all that are indexed.

    Raises:
        ModelError: the index is of another model.

    """
    index.check_model(bundle)
    frame = catalogue.frame
    in_reference = index.rows["id"].isin(index.rows["id"] if reference_ids is None else reference_ids)
    new_rows = CatalogueRows(np.flatnonzero(~frame["id"].isin(index.rows["id"][in_reference])))
    train = np.flatnonzero(in_reference & (index.rows["split"] == "train"))
    reference, reference_rows = index.embeddings(train), index.rows.iloc[train]
    new = np.empty((0, reference.shape[1]), dtype=np.float32)
    if len(new_rows):
        model, _ = bundle.load()
        new = catalogue_embeddings(bundle, catalogue, new_rows, "embedding new images")
        reference, new = pretrained_embeddings(model, reference), pretrained_embeddings(model, new)
        reporter.note("drift.measured_in", PRETRAINED_FEATURES if isinstance(model, SearchModel) else FULL_EMBEDDING)
    new_labels, reference_classes = frame["label"].iloc[new_rows], index.rows["label"][in_reference]
    drift = compute_drift(reference, reference_rows["label"], new, new_labels, reference_classes, frame["label"])
    _report_metrics(drift, reporter)
    if len(new_rows):
        reporter.figure("drift", farthest_pairs(catalogue, new_rows, reference_rows["id"].iloc[drift.nearest].tolist(), drift.distances))
    if len(drift.per_class):
        reporter.figure("drift_classes", class_drift_bars(drift.per_class, ALPHA))
    return drift


def _report_metrics(drift: Drift, reporter: Reporter) -> None:
    reporter.metric("drift.new_images", drift.new_images)
    for name, classes in (("new_classes", drift.new_classes), ("vanished_classes", drift.vanished_classes)):
        reporter.metric(f"drift.{name}", len(classes))
        if classes:
            reporter.note(f"drift.{name}", _join_names(classes))
    if not np.isnan(drift.p_value):
        reporter.metric("drift.mmd", drift.statistic)
        reporter.metric("drift.p_value", drift.p_value)
        reporter.metric("drift.classes_drifted", drift.num_drifted_classes)


def _join_names(classes: list[str]) -> str:
    more = len(classes) - MAX_NAMED_CLASSES
    return ", ".join(classes[:MAX_NAMED_CLASSES]) + (f" and {more} more" if more > 0 else "")

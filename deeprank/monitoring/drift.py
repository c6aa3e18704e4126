"""Drift: how far images that came in lie from those that the champion was trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import false_discovery_control
from sklearn.metrics.pairwise import euclidean_distances

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, SearchModel
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.plotting.style import NEUTRAL, RIGHT, WRONG, draw_image_rows, first_per_class, short_label
from deeprank.reporting import Reporter
from deeprank.search.index import Index

LEVEL = 0.05
# A side with fewer images is not tested: a p-value would say little.
ENOUGH = 8
SAMPLE = 1000
PERMUTATIONS = 500
NAMED = 20
PAIRS_SHOWN, PAIRS_A_LINE = 12, 3
CLASSES_SHOWN = 60

WHOLE = "whole embedding: where a net has learned its train images by heart, classes seem to drift that do not"

Array = npt.NDArray[np.floating]
Labels = Sequence[str] | npt.NDArray[np.object_]


@dataclass(frozen=True)
class Drift:
    """What came in, against what the champion knows.

    Attributes:
        new_images: how many came in.
        statistic, p_value: of the two-sample test within the classes that both sides have; NaN where either side has fewer than 8.
        per_class: label, new, known, statistic, p, p_adjusted (Benjamini and Hochberg) of each class with 8 or more on both
            sides, farthest first.
        new_classes, vanished_classes: that only today's catalogue, or only the champion's, has.
        nearest, distance: of each new image (new_images,) the index of the nearest known one, and how far it is.

    """

    new_images: int
    statistic: float
    p_value: float
    per_class: pd.DataFrame
    new_classes: list[str]
    vanished_classes: list[str]
    nearest: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]

    @property
    def classes_drifted(self) -> int:
        """How many of the tested classes drifted."""
        return int((self.per_class["p_adjusted"] < LEVEL).sum())


def two_sample_test(
    x: Array, y: Array, seed: int = 0, permutations: int = PERMUTATIONS, labels: tuple[Labels, Labels] | None = None
) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy (MMD²) of two samples, and the p-value that both are of one distribution.

    The kernel is Gaussian, as wide as the median distance; the p-value is by permutation, never below 1 / (1 + permutations).

    Args:
        x, y: (m, d) and (n, d), each of two or more; of a larger one 1,000 are drawn.
        seed: of drawing and permuting.
        permutations: how many.
        labels: classes of both samples; sides are permuted within a class, and compared about its own mean, so that another
            mix of classes is no difference.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", equation 3 (the unbiased estimate, which may be below 0).

    """
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(len(side))[:SAMPLE] for side in (x, y)]
    x, y = x[drawn[0]], y[drawn[1]]
    classes = [np.asarray(side, dtype=object)[rows] for side, rows in zip(labels, drawn, strict=True)] if labels else None
    stratum = pd.factorize(np.concatenate(classes))[0] if classes else np.zeros(len(x) + len(y), dtype=np.int64)
    strata = [np.flatnonzero(stratum == value) for value in np.unique(stratum)]
    kernel = _kernel(np.concatenate([x, y]).astype(np.float64))
    if classes:
        # Each class about its own mean: else another mix would add to, or hide, what moved within the classes.
        member = (stratum[:, None] == np.arange(stratum.max() + 1)).astype(np.float64)
        mean = member / member.sum(axis=0)
        np.fill_diagonal(kernel, 1)
        kernel -= member @ (mean.T @ kernel)
        kernel -= (kernel @ mean) @ member.T
        np.fill_diagonal(kernel, 0)
    sides = np.repeat([1.0, 0.0], [len(x), len(y)])[:, None]
    observed = float(_mmd(kernel, sides)[0])
    as_far = 0
    # In blocks: memory does not grow with the number of permutations.
    for start in range(0, permutations, PERMUTATIONS):
        permuted = np.repeat(sides, min(PERMUTATIONS, permutations - start), axis=1)
        for rows in strata:
            permuted[rows] = rng.permuted(permuted[rows], axis=0)
        # What rounding alone keeps apart counts as equal.
        as_far += int((_mmd(kernel, permuted) >= observed - 1e-12).sum())
    return observed, (1 + as_far) / (1 + permutations)


def _kernel(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Gaussian kernel (n, n) of points (n, d), with 0 on the diagonal: no point is compared with itself."""
    kernel: npt.NDArray[np.float64] = euclidean_distances(points, squared=True)
    apart = kernel[kernel > 0]
    kernel /= -2 * (np.median(apart) if len(apart) else 1.0)
    np.exp(kernel, out=kernel)
    np.fill_diagonal(kernel, 0)
    return kernel


def _mmd(kernel: npt.NDArray[np.float64], sides: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return MMD² (b,) for each column of `sides` (n, b): 1 for the points of the one sample, 0 for those of the other."""
    m = sides[:, 0].sum()
    n = len(sides) - m
    reached = kernel @ sides
    within_x = np.einsum("ib,ib->b", sides, reached)
    across = reached.sum(axis=0) - within_x
    within_y = kernel.sum() - within_x - 2 * across
    found: npt.NDArray[np.float64] = within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * across / (m * n)
    return found


def compare_classes(known: Array, known_labels: Sequence[str], new: Array, new_labels: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Test each class that has 8 or more images on both sides; arguments, and columns of the table, as of `drift`."""
    before, after = np.asarray(known_labels, dtype=object), np.asarray(new_labels, dtype=object)
    labels = [str(label) for label in np.unique(after) if min((before == label).sum(), (after == label).sum()) >= ENOUGH]
    # As many that the least possible p-value, times the number of classes, still is below the level.
    permutations = max(PERMUTATIONS, round(2 * len(labels) / LEVEL))
    rows = []
    for label in labels:
        x, y = known[before == label], new[after == label]
        rows.append((label, len(y), len(x), *two_sample_test(x, y, seed, permutations)))
    table = pd.DataFrame(rows, columns=["label", "new", "known", "statistic", "p"])
    table["p_adjusted"] = false_discovery_control(table["p"]) if rows else []
    return table.sort_values("statistic", ascending=False, kind="stable").reset_index(drop=True)


def drift(
    known: npt.NDArray[np.float32],
    known_labels: Sequence[str],
    new: npt.NDArray[np.float32],
    new_labels: Sequence[str],
    classes_before: Iterable[str],
    classes_today: Iterable[str],
    seed: int = 0,
) -> Drift:
    """Compare new images with known ones.

    Args:
        known: (m, d) embeddings of the champion's train images, m > 0.
        known_labels: (m,) their classes.
        new: (n, d) embeddings of the new images by the champion's net.
        new_labels: (n,) their classes.
        classes_before, classes_today: that the champion's and today's catalogue have.
        seed: of the tests.

    """
    before, today = set(classes_before), set(classes_today)
    labels = [np.asarray(side, dtype=object) for side in (known_labels, new_labels)]
    # Within the classes that both have: to bring images of few classes is no drift, and new classes are told apart.
    # pandas hashes; NumPy would compare each label with each.
    shared = [pd.Series(side, dtype=object).isin(set(other)).to_numpy() for side, other in zip(labels, labels[::-1], strict=True)]
    x, y = known[shared[0]], new[shared[1]]
    of = (labels[0][shared[0]], labels[1][shared[1]])
    statistic, p_value = two_sample_test(x, y, seed, labels=of) if min(len(x), len(y)) >= ENOUGH else (float("nan"), float("nan"))
    nearest = faiss.knn(new, known, 1)[1][:, 0] if len(new) else np.empty(0, dtype=np.int64)
    return Drift(
        new_images=len(new),
        statistic=statistic,
        p_value=p_value,
        per_class=compare_classes(known, known_labels, new, new_labels, seed),
        new_classes=sorted(today - before),
        vanished_classes=sorted(before - today),
        nearest=nearest,
        distance=np.linalg.norm(known[nearest].astype(np.float64) - new, axis=1),
    )


def untrained_part(model: Embedder, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what embeddings (n, d) hold of the ConvNet's features before training, of unit length; all of a net that holds none.

    What was learned puts the train images closer together than others of their kind, which a test takes for drift.
    """
    return model.before_training(embeddings) if isinstance(model, SearchModel) else embeddings


def measure_drift(catalogue: Catalogue, bundle: Bundle, index: Index, reporter: Reporter, made_from: Sequence[str] | None = None) -> Drift:
    """Compare the catalogue's images that are new to the champion with its train images.

    Reports drift.new_images, .new_classes and .vanished_classes (with their names), with 8 new images or more of
    classes that both have also drift.mmd, .p_value and .classes_drifted, and draws what lies farthest from all that is known.

    Args:
        catalogue: today's.
        bundle, index: of the champion.
        reporter: hears all of it.
        made_from: ids of the images that were there when its model was trained; None: all that are indexed.

    Raises:
        ModelError: the index is another model's.

    """
    index.require(bundle)
    frame = catalogue.frame
    before = index.rows["id"].isin(index.rows["id"] if made_from is None else made_from)
    came = np.flatnonzero(~frame["id"].isin(index.rows["id"][before]))
    train = np.flatnonzero(before & (index.rows["split"] == "train"))
    known, known_rows = index.embeddings(train), index.rows.iloc[train]
    new = np.empty((0, known.shape[1]), dtype=np.float32)
    if len(came):
        model, _ = bundle.load()
        new = catalogue_embeddings(bundle, catalogue, came, "embedding new images")
        known, new = untrained_part(model, known), untrained_part(model, new)
        reporter.note("drift.measured_in", "features before training" if isinstance(model, SearchModel) else WHOLE)
    found = drift(known, known_rows["label"], new, frame["label"].iloc[came], index.rows["label"][before], frame["label"])
    reporter.metric("drift.new_images", len(came))
    for kind, classes in (("new_classes", found.new_classes), ("vanished_classes", found.vanished_classes)):
        reporter.metric(f"drift.{kind}", len(classes))
        if classes:
            reporter.note(f"drift.{kind}", _names(classes))
    if not np.isnan(found.p_value):
        reporter.metric("drift.mmd", found.statistic)
        reporter.metric("drift.p_value", found.p_value)
        reporter.metric("drift.classes_drifted", found.classes_drifted)
    if len(came):
        reporter.figure("drift", farthest_pairs(catalogue, came, known_rows["id"], found))
    if len(found.per_class):
        reporter.figure("drift_classes", class_bars(found.per_class))
    return found


def _names(classes: list[str]) -> str:
    more = len(classes) - NAMED
    return ", ".join(classes[:NAMED]) + (f" and {more} more" if more > 0 else "")


def farthest_pairs(catalogue: Catalogue, came: npt.NDArray[np.int64], known_ids: Sequence[str], found: Drift) -> Figure:
    """Draw the new images that lie farthest from anything known, of each class one first, each beside its nearest known one.

    Args:
        catalogue: today's; a known image that it no longer has is left out.
        came: rows of the new images.
        known_ids: of the train images that `found.nearest` points to.
        found: the drift of these.

    """
    frame, ids = catalogue.frame, np.asarray(known_ids, dtype=object)
    row_of = {image: row for row, image in enumerate(frame["id"])}
    far = np.argsort(-found.distance, kind="stable")
    shown = first_per_class(pd.DataFrame({"label": frame["label"].to_numpy()[came[far]], "i": far}), PAIRS_SHOWN)
    cells = []
    for label, i in shown.itertuples(index=False):
        row = row_of.get(ids[found.nearest[i]])
        pair = [(int(came[i]), f"new{'' if row is not None else ' (its nearest is gone)'}\n{short_label(label)}", NEUTRAL)]
        if row is not None:
            other = frame["label"][row]
            pair.append((row, f"nearest, at {found.distance[i]:.2f}\n{short_label(other)}", RIGHT if other == label else WRONG))
        cells.append(pair)
    lines = [[cell for pair in cells[i : i + PAIRS_A_LINE] for cell in pair] for i in range(0, len(cells), PAIRS_A_LINE)]
    return draw_image_rows(catalogue, lines, f"Of {len(came):,} new images the farthest from all that the champion was trained on")


def class_bars(per_class: pd.DataFrame) -> Figure:
    """Draw how far each tested class moved, farthest on top, those that drifted in red; of many the farthest 60."""
    table = per_class.head(CLASSES_SHOWN).iloc[::-1]
    figure = Figure(figsize=(7, max(2.0, 0.19 * len(table) + 1.0)), layout="constrained")
    axes = figure.subplots()
    drifted = (table["p_adjusted"] < LEVEL).to_numpy()
    places = np.arange(len(table))
    for of, color, name in ((drifted, WRONG, f"drifted (adjusted p < {LEVEL})"), (~drifted, NEUTRAL, "within chance")):
        if of.any():
            axes.barh(places[of], table["statistic"][of], color=color, label=name)
    axes.set_yticks(places, [f"{short_label(row.label)} ({row.new} new, {row.known})" for row in table.itertuples()], fontsize=6.5)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel("distance of the new images of a class from its known ones (MMD²)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    return figure

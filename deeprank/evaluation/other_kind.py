"""Evaluation on images of another kind than the training images: each is a query against all the others."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import ingest_folder, require_classes
from deeprank.errors import DataError
from deeprank.evaluation.embedded import NOVEL_QUERIES, embed_images, evaluate_embedded
from deeprank.evaluation.evaluation import MAIN_METRIC, Evaluation
from deeprank.evaluation.intervals import Estimate
from deeprank.models.bundle import Bundle
from deeprank.row_numbers import CatalogueRows
from deeprank.settings import Settings
from deeprank.triplets.sampling import SampleSettings, sample_triplets

# A larger folder has this number of queries; 3,000 give intervals of less than 2 points to each side.
MAX_QUERIES = 3000
MIN_CLASSES = 2


class EvaluateSettings(Settings):
    """What to evaluate on beside the test split.

    Attributes:
        other: a folder of `<class>/<image>` of another kind than the training images, e.g. clothes for a model of groceries; empty:
            none. It shows what the model is worth on images that it was not trained for, and the gate holds a release that became
            worse there. It is never trained on.

    """

    other: str = ""


def ingest_other_kind(folder: Path | str, catalogues: str, log: Callable[[str], object]) -> Catalogue:
    """Bring the catalogue of a folder of images of another kind up to date; its splits do not matter.

    Args:
        folder: a folder of `<class>/<image>`.
        catalogues: folder or object-store URI for the catalogue table.
        log: called with each message of the ingest.

    Raises:
        DataError: the folder has fewer than two classes, or no two images of one class that are no near-duplicates.

    """
    catalogue = ingest_folder(folder, catalogues, log, keep_splits=True, min_classes=MIN_CLASSES)
    require_classes(catalogue.frame, folder)
    if not len(queries_and_gallery(catalogue)[0]):
        raise DataError(
            f"{folder}: no class has two images that are no near-duplicates; add images, or choose another folder in evaluate.other"
        )
    return catalogue


def evaluate_other_kind(catalogue: Catalogue, bundle: Bundle, model_name: str) -> Evaluation:
    """Evaluate a model on images of another kind, leave one out.

    Args:
        catalogue: of the images, see `ingest_other_kind`.
        bundle: the model.
        model_name: for the progress bar.

    Raises:
        ModelError: the bundle cannot be loaded.

    """
    queries, gallery = queries_and_gallery(catalogue)
    embedded = embed_images(catalogue, bundle, queries, gallery, f"{model_name}, images of another kind")
    drawn = sample_triplets(catalogue.frame[["label"]].iloc[queries].assign(split="test"), SampleSettings()).in_split("test")
    triplets = queries[drawn[["query", "positive", "negative"]].to_numpy()]
    return evaluate_embedded(catalogue.frame, embedded, queries, gallery, triplets, own_positions=np.searchsorted(gallery, queries))


def queries_and_gallery(catalogue: Catalogue) -> tuple[CatalogueRows, CatalogueRows]:
    """Return the rows of the queries and of the gallery, ascending; each query is in the gallery.

    The gallery has one image of each duplicate group: any model finds a near-duplicate. The queries have another image of their class
    in the gallery. Of more than MAX_QUERIES, those with the smallest id are the queries; an id is a hash.
    """
    gallery = np.flatnonzero(~catalogue.frame["duplicate_group"].duplicated())
    images = catalogue.frame.iloc[gallery]
    ids = images["id"][images["label"].duplicated(keep=False)]
    queries = np.sort(ids.sort_values().index.to_numpy()[:MAX_QUERIES])
    return CatalogueRows(queries), CatalogueRows(gallery)


def result_in_words(metrics: Mapping[str, Estimate], num_images: int) -> str:
    """Return a sentence about what the metrics of an evaluation on images of another kind say.

    Args:
        metrics: with the prefixes other., baseline.other. and gain.other.
        num_images: in the gallery.

    """
    recall, frozen, gain = (metrics[f"{prefix}other.{MAIN_METRIC}"] for prefix in ("", "baseline.", "gain."))
    if gain.low > 0:
        meaning = "what was learned helps on this kind too"
    elif gain.high < 0:
        meaning = "training made the model worse on this kind"
    else:
        meaning = "a difference is not proven"
    novel = metrics[f"other.{NOVEL_QUERIES}"].value
    return (
        f"{recall.count:,} of {num_images:,} images of another kind were searched among the others: recall@1 {recall.value:.4f}, "
        f"frozen baseline {frozen.value:.4f}, difference {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]: {meaning}; "
        f"{novel:.0%} of these queries are unlike anything that the model was trained on"
    )

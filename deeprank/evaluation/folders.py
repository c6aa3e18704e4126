"""Evaluating a model on two folders, one that asks and one that is searched."""

import numpy as np
import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.evaluation.evaluation import Evaluation, evaluate
from deeprank.models.bundle import Bundle
from deeprank.models.inference import embed_catalogue
from deeprank.triplets.sampling import SampleSettings, sample_triplets


def evaluate_folders(bundle: Bundle, queries: Catalogue, gallery: Catalogue) -> Evaluation:
    """Evaluate with every image of `queries` as a query against `gallery`; triplets are drawn among the queries, as
    the pipeline draws them in its test split.

    Raises:
        DataError: no class of the queries is in the gallery.

    """  # noqa: D205
    frame = pd.concat([queries.frame.assign(split="test"), gallery.frame.assign(split="train")], ignore_index=True)
    if not set(queries.frame["label"]) & set(gallery.frame["label"]):
        raise DataError(
            f"no class of the queries ({queries.frame['label'].iloc[0]}, …) is in the gallery ({gallery.frame['label'].iloc[0]}, …)"
        )
    model, preprocessing = bundle.load()
    parts = [embed_catalogue(model, preprocessing, part, np.arange(len(part.frame)), "embedding") for part in (queries, gallery)]
    rows = np.arange(len(frame))
    asked, searched = rows[: len(queries.frame)], rows[len(queries.frame) :]
    triplets = (
        sample_triplets(queries.frame.assign(split="test"), SampleSettings()).of("test")[["query", "positive", "negative"]].to_numpy()
    )
    return evaluate(frame, np.concatenate(parts), asked, searched, triplets)

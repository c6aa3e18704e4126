"""Evaluation of a model on two folders: queries and gallery."""

import numpy as np
import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.evaluation.evaluation import Evaluation, evaluate
from deeprank.models.bundle import Bundle
from deeprank.models.inference import embed_catalogue
from deeprank.row_numbers import CatalogueRows
from deeprank.triplets.sampling import SampleSettings, sample_triplets


def evaluate_folders(bundle: Bundle, queries: Catalogue, gallery: Catalogue) -> Evaluation:
    """Evaluate with every image of `queries` as a query against `gallery`.

    The triplets are drawn among the queries, as the pipeline draws them in the test split.

    Raises:
        DataError: no class of the queries is in the gallery.

    """
    frame = pd.concat([queries.frame.assign(split="test"), gallery.frame.assign(split="train")], ignore_index=True)
    if not set(queries.frame["label"]) & set(gallery.frame["label"]):
        raise DataError(
            f"no class of the queries ({queries.frame['label'].iloc[0]}, …) is in the gallery ({gallery.frame['label'].iloc[0]}, …): "
            "both folders must have the same class folders"
        )
    model, preprocessing = bundle.load()
    embeddings = [
        embed_catalogue(model, preprocessing, catalogue, CatalogueRows(np.arange(len(catalogue.frame))), "embedding")
        for catalogue in (queries, gallery)
    ]
    rows = np.arange(len(frame))
    query_rows, gallery_rows = CatalogueRows(rows[: len(queries.frame)]), CatalogueRows(rows[len(queries.frame) :])
    triplets = sample_triplets(queries.frame.assign(split="test"), SampleSettings()).in_split("test")
    triplet_rows = triplets[["query", "positive", "negative"]].to_numpy()
    return evaluate(frame, np.concatenate(embeddings), query_rows, gallery_rows, triplet_rows)

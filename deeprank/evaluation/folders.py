"""Evaluation of a model on two folders: queries and gallery."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.evaluation.embedded import evaluate_embedded, with_queries
from deeprank.evaluation.evaluation import Evaluation
from deeprank.models.bundle import Bundle
from deeprank.models.inference import embed_catalogue
from deeprank.row_numbers import CatalogueRows
from deeprank.triplets.sampling import SampleSettings, sample_triplets


def evaluate_folders(bundle: Bundle, queries: Catalogue, gallery: Catalogue, log: Callable[[str], object]) -> Evaluation:
    """Evaluate with every image of `queries` as a query against `gallery`.

    A query whose file is also in the gallery, byte for byte, is left out of its own neighbors; `log` gets the number of such
    queries. The triplets are drawn among the queries, as the pipeline draws them in the test split.

    Raises:
        DataError: no class of the queries is in the gallery.

    """
    frame = pd.concat([queries.frame.assign(split="test"), gallery.frame.assign(split="train")], ignore_index=True)
    if not set(queries.frame["label"]) & set(gallery.frame["label"]):
        raise DataError(
            f"no class of the queries ({queries.frame['label'].iloc[0]}, …) is in the gallery ({gallery.frame['label'].iloc[0]}, …): "
            "both folders must have the same class folders"
        )
    own_positions = pd.Index(gallery.frame["id"]).get_indexer(queries.frame["id"])
    num_own = int((own_positions >= 0).sum())
    if num_own:
        log(f"{num_own:,} of the {len(own_positions):,} queries are also in the gallery; each is left out of its own neighbors")
    model, preprocessing = bundle.load()
    embeddings = [
        embed_catalogue(model, preprocessing, catalogue, CatalogueRows(np.arange(len(catalogue.frame))), "embedding")
        for catalogue in (queries, gallery)
    ]
    rows = np.arange(len(frame))
    query_rows, gallery_rows = CatalogueRows(rows[: len(queries.frame)]), CatalogueRows(rows[len(queries.frame) :])
    triplets = sample_triplets(queries.frame.assign(split="test"), SampleSettings()).in_split("test")
    triplet_rows = triplets[["query", "positive", "negative"]].to_numpy()
    embedded = with_queries(model, np.concatenate(embeddings), query_rows)
    return evaluate_embedded(frame, embedded, query_rows, gallery_rows, triplet_rows, own_positions)

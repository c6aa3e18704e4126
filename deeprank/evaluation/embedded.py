"""The images of a catalogue as a model embeds them, and an evaluation of them."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.evaluation import Evaluation, evaluate
from deeprank.evaluation.intervals import estimate
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.row_numbers import CatalogueRows

Embeddings = npt.NDArray[np.float32]

# Share of the queries that are unlike anything that the model was trained on.
NOVEL_QUERIES = "novel_queries"


class Embedded(NamedTuple):
    """The embeddings (len(frame), d) of a catalogue's images as images that are searched, and as queries.

    Attributes:
        images, queries: the embeddings.
        is_novel: (len(frame),) whether a query's familiarity is 0.

    """

    images: Embeddings
    queries: Embeddings
    is_novel: npt.NDArray[np.bool_]


def embed_images(catalogue: Catalogue, bundle: Bundle, queries: CatalogueRows, gallery: CatalogueRows, model_name: str) -> Embedded:
    """Return the embeddings of queries and gallery; all other rows are zero."""
    rows = CatalogueRows(np.concatenate([queries, gallery]))
    embeddings = catalogue_embeddings(bundle, catalogue, rows, f"embedding, {model_name}")
    images = np.zeros((len(catalogue.frame), embeddings.shape[1]), dtype=np.float32)
    images[rows] = embeddings
    return with_queries(bundle.load()[0], images, queries)


def with_queries(model: Embedder, images: Embeddings, queries: CatalogueRows) -> Embedded:
    """Return embeddings (n, d) together with those of some rows as queries; all other rows are zero."""
    as_queries, is_novel = np.zeros_like(images), np.zeros(len(images), dtype=bool)
    as_queries[queries] = model.as_queries(images[queries])
    is_novel[queries] = model.query_familiarity(images[queries]) == 0
    return Embedded(images, as_queries, is_novel)


def evaluate_embedded(
    frame: pd.DataFrame,
    embedded: Embedded,
    queries: CatalogueRows,
    gallery: CatalogueRows,
    triplets: npt.NDArray[np.int64],
    own_positions: npt.NDArray[np.int64] | None = None,
) -> Evaluation:
    """Compute every metric, and the share of novel queries; arguments as of `evaluate`."""
    evaluation = evaluate(frame, embedded.images, queries, gallery, triplets, embedded.queries, own_positions)
    duplicate_groups = np.unique(frame["duplicate_group"].iloc[queries], return_inverse=True)[1]
    novel = estimate(embedded.is_novel[queries].astype(np.float64), duplicate_groups, is_proportion=True)
    return replace(evaluation, metrics=evaluation.metrics | {NOVEL_QUERIES: novel})

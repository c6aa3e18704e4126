"""The nearest neighbors of queries in a gallery, computed exactly with FAISS."""

from collections.abc import Sequence

import faiss
import numpy as np
import numpy.typing as npt

from deeprank.row_numbers import CatalogueRows

Vectors = npt.NDArray[np.float32]


def neighbors(queries: Vectors, embeddings: Vectors, gallery: CatalogueRows, k: int) -> CatalogueRows:
    """Return the gallery rows nearest to each query, nearest first.

    Args:
        queries: (q, d) embeddings of the queries.
        embeddings: (n, d) of unit length.
        gallery: rows of the embeddings.
        k: number of neighbors per query.

    Returns:
        (q, min(k, len(gallery))) rows of the embeddings.

    """
    # FAISS works in blocks of both sides: the full matrix of similarities is never in memory.
    _, positions = faiss.knn(queries, embeddings[gallery], min(k, len(gallery)), metric=faiss.METRIC_INNER_PRODUCT)
    return CatalogueRows(gallery[positions])


def nearest(
    queries: Vectors, embeddings: Vectors, gallery: CatalogueRows, own_positions: npt.NDArray[np.int64] | None = None
) -> CatalogueRows:
    """Return the gallery row nearest to each query, (q,); arguments as of `neighbors`, own_positions as of `query_table`."""
    if own_positions is None:
        return CatalogueRows(neighbors(queries, embeddings, gallery, 1)[:, 0])
    two = neighbors(queries, embeddings, gallery, 2)
    first_is_own = (own_positions >= 0) & (two[:, 0] == gallery[own_positions])
    return CatalogueRows(np.where(first_is_own, two[:, -1], two[:, 0]))


def first_hit_ranks(
    neighbor_rows: CatalogueRows, labels: Sequence[str], queries: CatalogueRows, gallery: CatalogueRows
) -> npt.NDArray[np.float64]:
    """Return the rank, from 1, of the first neighbor of each query's class.

    Args:
        neighbor_rows: (len(queries), k) rows of the neighbors of each query, as of `neighbors`.
        labels: class of each row.
        queries, gallery: rows.

    Returns:
        (len(queries),); infinite where none of the neighbors is of the class, NaN where the gallery has no image of the class.

    """
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    hits = codes[neighbor_rows] == codes[queries][:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    ranks[~np.isin(codes[queries], codes[gallery])] = np.nan
    return ranks

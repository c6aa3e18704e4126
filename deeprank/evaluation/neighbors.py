"""The nearest neighbors of queries in a gallery, exact, by faiss in blocks."""

from collections.abc import Sequence

import faiss
import numpy as np
import numpy.typing as npt

# How far down a recall curve looks.
DEPTH = 50


def neighbors(
    embeddings: npt.NDArray[np.float32], queries: npt.NDArray[np.int64], gallery: npt.NDArray[np.int64], depth: int
) -> npt.NDArray[np.int64]:
    """Return the gallery rows nearest to each query, nearest first: (len(queries), min(depth, len(gallery))).

    Args:
        embeddings: (n, d) of unit length.
        queries, gallery: rows of the embeddings.
        depth: neighbors of each.

    """
    # faiss goes through blocks of both sides: the table of all similarities is never in memory.
    _, found = faiss.knn(embeddings[queries], embeddings[gallery], min(depth, len(gallery)), metric=faiss.METRIC_INNER_PRODUCT)
    rows: npt.NDArray[np.int64] = gallery[found]
    return rows


def nearest(embeddings: npt.NDArray[np.float32], queries: npt.NDArray[np.int64], gallery: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the gallery row nearest to each query, (len(queries),); arguments as of `neighbors`."""
    return neighbors(embeddings, queries, gallery, 1)[:, 0]


def first_hit_ranks(
    embeddings: npt.NDArray[np.float32],
    labels: Sequence[str],
    queries: npt.NDArray[np.int64],
    gallery: npt.NDArray[np.int64],
    depth: int = DEPTH,
) -> npt.NDArray[np.float64]:
    """Return the rank, from 1, of the first neighbor of each query's own class.

    Args:
        embeddings: (n, d) of unit length.
        labels: (n,) classes.
        queries, gallery: rows of the embeddings.
        depth: neighbors looked at.

    Returns:
        (len(queries),); infinite where the first `depth` neighbors hold none, NaN where the gallery holds none.

    """
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    hit = codes[neighbors(embeddings, queries, gallery, depth)] == codes[queries][:, None]
    ranks = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf)
    ranks[~np.isin(codes[queries], codes[gallery])] = np.nan
    return ranks

"""Retrieval metrics, exact, one row a query: what each query found decides intervals, tables and paired tests later."""

import numpy as np
import numpy.typing as npt
import pandas as pd

RANKS = (1, 5, 10)
QUERY_CHUNK = 256


def query_table(
    queries: npt.NDArray[np.float32],
    query_classes: npt.NDArray[np.int64],
    gallery: npt.NDArray[np.float32],
    gallery_classes: npt.NDArray[np.int64],
) -> pd.DataFrame:
    """Return a row a query with recall_at_1, _5, _10 (0 or 1) and map_at_r (average precision at R); NaN for a query whose
    class the gallery lacks.

    Args:
        queries, gallery: (n, d) embeddings of unit length.
        query_classes, gallery_classes: (n,) class codes.

    Source: average precision at R, Musgrave et al. 2020, "A Metric Learning Reality Check", section 3.2.

    """  # noqa: D205
    values, sizes = np.unique(gallery_classes, return_counts=True)
    size_of = dict(zip(values.tolist(), sizes.tolist(), strict=True))
    relevant = np.array([size_of.get(code, 0) for code in query_classes.tolist()])
    depth = min(len(gallery), max(int(relevant.max(initial=1)), *RANKS))
    rows = [
        _chunk(
            queries[i : i + QUERY_CHUNK], query_classes[i : i + QUERY_CHUNK], relevant[i : i + QUERY_CHUNK], gallery, gallery_classes, depth
        )
        for i in range(0, len(queries), QUERY_CHUNK)
    ]
    return pd.concat(rows, ignore_index=True)


def _chunk(
    queries: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    relevant: npt.NDArray[np.int64],
    gallery: npt.NDArray[np.float32],
    gallery_classes: npt.NDArray[np.int64],
    depth: int,
) -> pd.DataFrame:
    similarity = queries @ gallery.T
    nearest = np.argpartition(-similarity, depth - 1, axis=1)[:, :depth]
    order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
    hit = gallery_classes[np.take_along_axis(nearest, order, axis=1)] == classes[:, None]
    precision = np.cumsum(hit, axis=1) / np.arange(1, depth + 1)
    within = np.arange(depth)[None, :] < relevant[:, None]
    average = (precision * hit * within).sum(axis=1) / np.maximum(relevant, 1)
    table = pd.DataFrame({f"recall_at_{k}": hit[:, :k].any(axis=1).astype(np.float64) for k in RANKS} | {"map_at_r": average})
    table.loc[relevant == 0] = np.nan
    return table


def triplet_correct(embeddings: npt.NDArray[np.float32], triplets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return for each triplet 1 where the query is nearer to its positive than to its negative, else 0.

    Args:
        embeddings: (n, d) of unit length.
        triplets: (m, 3) row indices of query, positive, negative.

    Source: "similarity precision" of Wang et al. 2014, section 6.2, is the mean of it.

    """
    query, positive, negative = (embeddings[triplets[:, i]] for i in range(3))
    return ((query * positive).sum(axis=1) > (query * negative).sum(axis=1)).astype(np.float64)

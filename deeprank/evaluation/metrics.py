"""Retrieval metrics, exact, one row a query: what each query found decides intervals, tables and paired tests later.

Nearness is computed without rounding (see `_whole`), and equally near images rank in the order of the gallery. So no
rank depends on chunks, threads or the processor.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.triplets.relevance import RelevanceWeights, grades

RANKS = (1, 5, 10)
GRADED_RANKS = 10
TOP = 30
# Bytes that the chunks at work may take together.
MEMORY = 400 * 2**20
GALLERY_CHUNK = 2**14
TRIPLET_CHUNK = 2**15

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.float32]
Result = TypeVar("Result")


def query_table(
    queries: Embeddings,
    query_codes: Ints,
    gallery: Embeddings,
    gallery_codes: Ints,
    weights: RelevanceWeights,
) -> pd.DataFrame:
    """Return a row a query: of each level, e.g. fine.recall_at_1, _5, _10 (0 or 1) and fine.map_at_r (average precision at
    R), and ndcg_at_10 of graded relevance.

    A query whose class the gallery lacks has NaN at that level; one to which nothing is relevant has NaN as ndcg_at_10.

    Args:
        queries, gallery: (n, d) embeddings of unit length.
        query_codes, gallery_codes: (n, depth) class codes, coarsest first, of one call of `relevance.levels`: the last
            column is the fine class, the last but one the coarse class (where there is but one, it is both).
        weights: of graded relevance.

    Source: average precision at R, Musgrave et al. 2020, "A Metric Learning Reality Check", section 3.2; nDCG, Järvelin &
    Kekäläinen 2002, with the discount 1 / log2(rank + 1).

    """  # noqa: D205
    depth = query_codes.shape[1]
    columns = {"fine": depth - 1, "coarse": max(depth - 2, 0)}
    # (queries, depth) images of the gallery that share so many folders with each query, or more.
    sharing = np.stack(
        [np.bincount(gallery_codes[:, d], minlength=int(query_codes[:, d].max(initial=0)) + 1)[query_codes[:, d]] for d in range(depth)],
        axis=1,
    )
    needed = np.clip(sharing[:, columns["coarse"]], max(*RANKS, GRADED_RANKS), len(gallery))
    # Queries that look equally deep share a chunk.
    order = np.argsort(needed, kind="stable")
    table = grades(depth, weights)
    ideal = _ideal_gain(sharing, table, len(gallery))

    def look(keys: Ints, part: slice) -> dict[str, Floats]:
        rows = order[part]
        ranked = _nearest(keys, int(needed[rows].max()))
        found: dict[str, Floats] = {}
        for level, column in columns.items():
            hit = gallery_codes[:, column][ranked] == query_codes[rows, column][:, None]
            found |= {f"{level}.{name}": values for name, values in _found(hit, sharing[rows, column]).items()}
        shared = (gallery_codes[ranked[:, :GRADED_RANKS]] == query_codes[rows][:, None]).sum(axis=2)
        # Not as a matrix product, whose last digit depends on its number of rows.
        gain = (table[shared] / np.log2(np.arange(shared.shape[1]) + 2)).sum(axis=1)
        return found | {"ndcg_at_10": np.where(ideal[rows] > 0, gain / np.where(ideal[rows] > 0, ideal[rows], 1), np.nan)}

    # Of the nearest: place, code, whether it hits, and the tables of hits.
    parts = _in_chunks(look, queries[order], gallery, 64 * int(needed.max(initial=1)))
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True).iloc[np.argsort(order)].reset_index(drop=True)


def triplet_correct(embeddings: Embeddings, triplets: Ints) -> Floats:
    """Return for each triplet 1 where the query is nearer to its positive than to its negative, else 0.

    Args:
        embeddings: (n, d) of unit length.
        triplets: (m, 3) row indices of query, positive, negative.

    Source: "similarity precision" of Wang et al. 2014, section 6.2, is the mean of it.

    """
    out = np.empty(len(triplets))
    for first in range(0, len(triplets), TRIPLET_CHUNK):
        query, positive, negative = (_whole(embeddings[rows]) for rows in triplets[first : first + TRIPLET_CHUNK].T)
        out[first : first + TRIPLET_CHUNK] = (query * positive).sum(axis=1) > (query * negative).sum(axis=1)
    return out


def top_score(embeddings: Embeddings, triplets: Ints, images: Ints) -> Floats:
    """Return for each triplet 1 where it is correct (see `triplet_correct`) and -1 where it is not; NaN where neither its
    positive nor its negative is among the 30 images nearest to its query.

    Args:
        embeddings: (n, d) of unit length.
        triplets: (m, 3) row indices of query, positive, negative.
        images: rows that are ranked, the query aside; all rows of the triplets are among them.

    Source: the sum of it is the "score-at-top-30" of Wang et al. 2014, section 6.2. Its mean, from -1 to 1, can be compared
    between test sets of any size.

    """  # noqa: D205
    place = np.zeros(len(embeddings), dtype=np.int64)
    place[images] = np.arange(len(images))
    order = np.argsort(triplets[:, 0], kind="stable")
    by_query = triplets[order]
    asked, first = np.unique(by_query[:, 0], return_index=True)
    first = np.append(first, len(by_query))
    last = min(TOP, len(images)) - 1

    def look(keys: Ints, part: slice) -> npt.NDArray[np.bool_]:
        rows = np.arange(len(asked))[part]
        keys[np.arange(len(rows)), place[asked[rows]]] = np.iinfo(np.int64).max
        mine = by_query[first[rows[0]] : first[rows[-1] + 1]]
        query = np.repeat(np.arange(len(rows)), np.diff(first)[rows])
        nearer = np.minimum(keys[query, place[mine[:, 1]]], keys[query, place[mine[:, 2]]])
        keys.partition(last, axis=1)
        return nearer <= keys[query, last]

    near = np.empty(len(triplets), dtype=bool)
    near[order] = np.concatenate([np.empty(0, dtype=bool), *_in_chunks(look, embeddings[asked], embeddings[images])])
    return np.where(near, 2 * triplet_correct(embeddings, triplets) - 1, np.nan)


def _whole(embeddings: Embeddings) -> Floats:
    """Return embeddings in whole multiples of 2^-25, about float32's own precision: float64 then adds their products, whole
    multiples of 2^-50, without rounding, in whatever order a matrix product takes them.
    """  # noqa: D205
    out = embeddings.astype(np.float64)
    out *= 2.0**25
    return np.rint(out, out=out)


def _keys(queries: Floats, gallery: Floats) -> Ints:
    """Return (queries, gallery) numbers that order each query's gallery: nearer first, then by place, which is their low half."""
    keys = np.empty((len(queries), len(gallery)), dtype=np.int64)
    for first in range(0, len(gallery), GALLERY_CHUNK):
        similarity = queries @ gallery[first : first + GALLERY_CHUNK].T
        # Of unit length, so that the high half holds it in steps of 2^-30.
        similarity *= -(2.0**-20)
        keys[:, first : first + GALLERY_CHUNK] = similarity
    keys <<= 32
    keys |= np.arange(len(gallery))
    return keys


def _nearest(keys: Ints, depth: int) -> Ints:
    """Return (queries, depth) places in the gallery, nearest first; the keys are lost."""
    keys.partition(depth - 1, axis=1)
    nearest = keys[:, :depth]
    nearest.sort(axis=1)
    nearest &= 2**32 - 1
    return nearest


def _found(hit: npt.NDArray[np.bool_], relevant: Ints) -> dict[str, Floats]:
    """Return recall at each rank and average precision at R of queries, from which of their neighbors share their class."""
    known = relevant > 0
    found = {f"recall_at_{k}": np.where(known, hit[:, :k].any(axis=1), np.nan) for k in RANKS}
    query, rank = np.nonzero(hit)
    so_far = np.arange(1, len(query) + 1) - np.searchsorted(query, query)
    within = rank < relevant[query]
    precision = np.bincount(query[within], so_far[within] / (rank[within] + 1), minlength=len(hit))
    return found | {"map_at_r": np.where(known, precision / np.maximum(relevant, 1), np.nan)}


def _ideal_gain(sharing: Ints, table: Floats, gallery: int) -> Floats:
    """Return each query's discounted gain if the gallery came in the order of its relevance, from counts alone."""
    exactly = -np.diff(sharing, axis=1, prepend=gallery, append=0)
    best = np.argsort(-table)
    upto = np.minimum(np.cumsum(exactly[:, best], axis=1), GRADED_RANKS)
    discounts = np.append(0, np.cumsum(1 / np.log2(np.arange(GRADED_RANKS) + 2)))
    return np.diff(discounts[upto], axis=1, prepend=0) @ table[best]


def _in_chunks(look: Callable[[Ints, slice], Result], queries: Embeddings, gallery: Embeddings, bytes_each: int = 0) -> list[Result]:
    """Compute keys of as many queries as `MEMORY` holds at a time, and look at them on threads: numpy sorts without the GIL.

    Args:
        look: takes the keys of some queries, and which queries these are.
        queries, gallery: embeddings of unit length.
        bytes_each: what looking takes for a query.

    """
    out: list[Result] = []
    searched, workers = _whole(gallery), os.cpu_count() or 1
    size = max(1, MEMORY // (8 * len(gallery) + bytes_each))
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(queries), size):
            keys = _keys(_whole(queries[first : first + size]), searched)
            share = -(-len(keys) // workers)
            starts = range(0, len(keys), share)
            shares = [slice(first + start, first + min(start + share, len(keys))) for start in starts]
            out += pool.map(look, [keys[start : start + share] for start in starts], shares)
            del keys
    return out

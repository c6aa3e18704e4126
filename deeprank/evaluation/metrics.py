"""Exact retrieval metrics, one row per query, so that intervals, tables and paired tests can be computed from them.

Similarities are computed without rounding (see `_quantize`), and equally similar images rank in the order of the gallery.
Ranks therefore do not depend on chunks, threads or the processor.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.cpu import num_cores
from deeprank.triplets.relevance import RelevanceWeights, relevance_by_depth

RECALL_RANKS = (1, 5, 10)
NDCG_RANK = 10
# K of the score-at-top-K.
TOP_K = 30
# Memory that all chunks in progress may take together.
MAX_CHUNK_BYTES = 400 * 2**20
GALLERY_CHUNK_SIZE = 2**14
TRIPLET_CHUNK_SIZE = 2**15

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.float32]
Result = TypeVar("Result")


def query_table(
    queries: Embeddings,
    query_codes: IntArray,
    gallery: Embeddings,
    gallery_codes: IntArray,
    weights: RelevanceWeights,
    own_positions: IntArray | None = None,
) -> pd.DataFrame:
    """Return recall@k, average precision at R and nDCG of each query.

    Args:
        queries, gallery: (n, d) embeddings; those of the gallery have unit length, inner products are at most 1.
        query_codes, gallery_codes: (n, depth) class codes, coarsest first, of one call of `encode_hierarchy`: the last
            column is the fine class, the last but one the coarse class (the only column is both).
        weights: of graded relevance.
        own_positions: (n,) position in the gallery of the query itself, which is no result; -1 or None: not in the gallery.

    Returns:
        One row per query: fine.recall_at_1, _5, _10 (0 or 1), fine.map_at_r (average precision at R, 0 to 1), the same for
        coarse, and ndcg_at_10 of graded relevance (0 to 1). A metric is NaN where the gallery has no image of the query's
        class at that level, ndcg_at_10 where the gallery has no relevant image.

    Source: average precision at R, Musgrave et al. 2020, "A Metric Learning Reality Check", section 3.2; nDCG, Järvelin &
    Kekäläinen 2002, with the discount 1 / log2(rank + 1).

    """
    depth = query_codes.shape[1]
    level_columns = {"fine": depth - 1, "coarse": max(depth - 2, 0)}
    own = np.full(len(queries), -1) if own_positions is None else own_positions
    num_sharing = _num_sharing(query_codes, gallery_codes, own)
    ranks_needed = np.clip(num_sharing[:, level_columns["coarse"]], max(*RECALL_RANKS, NDCG_RANK), len(gallery))
    # Queries that need the same number of ranks share a chunk.
    order = np.argsort(ranks_needed, kind="stable")
    relevances = relevance_by_depth(depth, weights)
    ideal_gain = _ideal_gain(num_sharing, relevances, len(gallery))

    def compute(keys: IntArray, chunk: slice) -> dict[str, FloatArray]:
        rows = order[chunk]
        ranked = _top_positions(_rank_own_last(keys, own[rows]), int(ranks_needed[rows].max()))
        is_other = ranked != own[rows][:, None]
        columns: dict[str, FloatArray] = {}
        for level, column in level_columns.items():
            hits = (gallery_codes[:, column][ranked] == query_codes[rows, column][:, None]) & is_other
            columns |= {f"{level}.{name}": values for name, values in _recall_and_precision(hits, num_sharing[rows, column]).items()}
        shared_depth = (gallery_codes[ranked[:, :NDCG_RANK]] == query_codes[rows][:, None]).sum(axis=2) * is_other[:, :NDCG_RANK]
        return columns | {"ndcg_at_10": _ndcg(relevances[shared_depth], ideal_gain[rows])}

    # 64 bytes for each ranked image: position, code, hit, and the temporary arrays of hits.
    chunks = _map_chunks(compute, queries[order], gallery, 64 * int(ranks_needed.max(initial=1)))
    return pd.concat([pd.DataFrame(chunk) for chunk in chunks], ignore_index=True).iloc[np.argsort(order)].reset_index(drop=True)


def triplet_correct(query_embeddings: Embeddings, embeddings: Embeddings, triplets: IntArray) -> FloatArray:
    """Return 1 for each triplet whose query is nearer to its positive than to its negative, else 0.

    Args:
        query_embeddings, embeddings: (n, d) each image as a query, and as an image that is searched; of unit length.
        triplets: (m, 3) row indices of query, positive, negative.

    Returns:
        (m,); its mean is the triplet accuracy.

    Source: the "similarity precision" of Wang et al. 2014, section 6.2, is the mean.

    """
    correct = np.empty(len(triplets))
    for first in range(0, len(triplets), TRIPLET_CHUNK_SIZE):
        chunk = slice(first, first + TRIPLET_CHUNK_SIZE)
        query = _quantize(query_embeddings[triplets[chunk, 0]])
        positive, negative = (_quantize(embeddings[rows]) for rows in triplets[chunk, 1:].T)
        correct[chunk] = (query * positive).sum(axis=1) > (query * negative).sum(axis=1)
    return correct


def score_at_top(query_embeddings: Embeddings, embeddings: Embeddings, triplets: IntArray, images: IntArray) -> FloatArray:
    """Return 1 for each correct triplet and -1 for each wrong one; NaN where neither image is near the query.

    Args:
        query_embeddings, embeddings: as of `triplet_correct`.
        triplets: (m, 3) row indices of query, positive, negative.
        images: rows that are ranked, without the query itself; they contain all rows of the triplets.

    Returns:
        (m,); NaN where neither positive nor negative is among the 30 images nearest to the query.

    Source: the sum is the "score-at-top-30" of Wang et al. 2014, section 6.2. The mean, from -1 to 1, is comparable between
    test sets of different sizes.

    """
    column_of_row = np.zeros(len(embeddings), dtype=np.int64)
    column_of_row[images] = np.arange(len(images))
    order = np.argsort(triplets[:, 0], kind="stable")
    sorted_triplets = triplets[order]
    queries, first = np.unique(sorted_triplets[:, 0], return_index=True)
    first = np.append(first, len(sorted_triplets))
    last_rank = min(TOP_K, len(images)) - 1

    def is_near(keys: IntArray, chunk: slice) -> npt.NDArray[np.bool_]:
        numbers = np.arange(len(queries))[chunk]
        # The query itself ranks last.
        keys[np.arange(len(numbers)), column_of_row[queries[numbers]]] = np.iinfo(np.int64).max
        chunk_triplets = sorted_triplets[first[numbers[0]] : first[numbers[-1] + 1]]
        query = np.repeat(np.arange(len(numbers)), np.diff(first)[numbers])
        positive_key, negative_key = (keys[query, column_of_row[chunk_triplets[:, column]]] for column in (1, 2))
        keys.partition(last_rank, axis=1)
        return np.minimum(positive_key, negative_key) <= keys[query, last_rank]

    near = np.empty(len(triplets), dtype=bool)
    near[order] = np.concatenate([np.empty(0, dtype=bool), *_map_chunks(is_near, query_embeddings[queries], embeddings[images])])
    return np.where(near, 2 * triplet_correct(query_embeddings, embeddings, triplets) - 1, np.nan)


def _num_sharing(query_codes: IntArray, gallery_codes: IntArray, own_positions: IntArray) -> IntArray:
    """Return (queries, depth): column d is the number of gallery images with the query's code in column d, without its own."""
    counts = []
    for query_column, gallery_column in zip(query_codes.T, gallery_codes.T, strict=True):
        counts.append(np.bincount(gallery_column, minlength=int(query_column.max(initial=0)) + 1)[query_column])
    num_sharing: IntArray = np.stack(counts, axis=1)
    has_own = own_positions >= 0
    num_sharing[has_own] -= query_codes[has_own] == gallery_codes[own_positions[has_own]]
    return num_sharing


def _quantize(embeddings: Embeddings) -> FloatArray:
    """Return embeddings rounded to multiples of 2^-25, scaled to whole numbers; this is about float32's precision.

    A float64 sums the products of such numbers without rounding, in whatever order a matrix product adds them.
    """
    scaled = embeddings.astype(np.float64)
    scaled *= 2.0**25
    return np.rint(scaled, out=scaled)


def _ranking_keys(queries: FloatArray, gallery: FloatArray) -> IntArray:
    """Return (queries, gallery) keys whose ascending order is the ranking: by similarity, then by position in the gallery.

    The high half of a key holds the negative similarity, the low half the position.
    """
    keys = np.empty((len(queries), len(gallery)), dtype=np.int64)
    for first in range(0, len(gallery), GALLERY_CHUNK_SIZE):
        similarity = queries @ gallery[first : first + GALLERY_CHUNK_SIZE].T
        # A similarity is at most 1, so the high half holds the similarity in steps of 2^-30.
        similarity *= -(2.0**-20)
        keys[:, first : first + GALLERY_CHUNK_SIZE] = similarity
    keys <<= 32
    keys |= np.arange(len(gallery))
    return keys


def _rank_own_last(keys: IntArray, own_positions: IntArray) -> IntArray:
    """Return the keys with the query's own position after all others; the keys are changed."""
    has_own = np.flatnonzero(own_positions >= 0)
    keys[has_own, own_positions[has_own]] = np.iinfo(np.int32).max << 32 | own_positions[has_own]
    return keys


def _top_positions(keys: IntArray, k: int) -> IntArray:
    """Return (queries, k) positions in the gallery, nearest first; the keys are overwritten."""
    keys.partition(k - 1, axis=1)
    positions = keys[:, :k]
    positions.sort(axis=1)
    positions &= 2**32 - 1
    return positions


def _recall_and_precision(hits: npt.NDArray[np.bool_], num_relevant: IntArray) -> dict[str, FloatArray]:
    """Return recall at each rank and average precision at R, each (queries,).

    Args:
        hits: (queries, ranks) whether the image at a rank is of the query's class.
        num_relevant: (queries,) number of gallery images of the class.

    """
    answerable = num_relevant > 0
    recall = {f"recall_at_{k}": np.where(answerable, hits[:, :k].any(axis=1), np.nan) for k in RECALL_RANKS}
    query, rank = np.nonzero(hits)
    hits_so_far = np.arange(1, len(query) + 1) - np.searchsorted(query, query)
    within_r = rank < num_relevant[query]
    precision_sum = np.bincount(query[within_r], hits_so_far[within_r] / (rank[within_r] + 1), minlength=len(hits))
    return recall | {"map_at_r": np.where(answerable, precision_sum / np.maximum(num_relevant, 1), np.nan)}


def _ndcg(relevances: FloatArray, ideal_gain: FloatArray) -> FloatArray:
    """Return the discounted gain (queries,) of ranked images (queries, ranks), relative to the ideal; NaN where that is 0."""
    # Not a matrix product: its last digit depends on the number of rows.
    gain = (relevances / np.log2(np.arange(relevances.shape[1]) + 2)).sum(axis=1)
    return np.where(ideal_gain > 0, gain / np.where(ideal_gain > 0, ideal_gain, 1), np.nan)


def _ideal_gain(num_sharing: IntArray, relevances: FloatArray, gallery_size: int) -> FloatArray:
    """Return each query's discounted gain for a gallery sorted by relevance, computed from counts alone."""
    num_at_depth = -np.diff(num_sharing, axis=1, prepend=gallery_size, append=0)
    best_first = np.argsort(-relevances)
    last_rank = np.minimum(np.cumsum(num_at_depth[:, best_first], axis=1), NDCG_RANK)
    discount_sums = np.append(0, np.cumsum(1 / np.log2(np.arange(NDCG_RANK) + 2)))
    return np.diff(discount_sums[last_rank], axis=1, prepend=0) @ relevances[best_first]


def _map_chunks(
    compute: Callable[[IntArray, slice], Result], queries: Embeddings, gallery: Embeddings, bytes_per_query: int = 0
) -> list[Result]:
    """Compute ranking keys in chunks of queries that fit `MAX_CHUNK_BYTES`, and apply a function to them on threads.

    Args:
        compute: takes the keys of some queries, and the slice of `queries` that they are of; NumPy sorts without the GIL.
        queries, gallery: embeddings of unit length.
        bytes_per_query: memory that `compute` needs for one query.

    """
    results: list[Result] = []
    quantized_gallery, num_workers = _quantize(gallery), num_cores()
    chunk_size = max(1, MAX_CHUNK_BYTES // (8 * len(gallery) + bytes_per_query))
    with ThreadPoolExecutor(num_workers) as pool:
        for first in range(0, len(queries), chunk_size):
            keys = _ranking_keys(_quantize(queries[first : first + chunk_size]), quantized_gallery)
            per_worker = -(-len(keys) // num_workers)
            starts = range(0, len(keys), per_worker)
            slices = [slice(first + start, first + min(start + per_worker, len(keys))) for start in starts]
            results += pool.map(compute, [keys[start : start + per_worker] for start in starts], slices)
            del keys
    return results

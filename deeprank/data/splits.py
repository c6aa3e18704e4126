"""Assign near-duplicate groups and splits to images.

The split of a group depends on the content of its oldest image only. A group that is joined to an older one takes that one's split.
"""

from collections.abc import Callable, Mapping

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SPLITS = ("train", "val", "test")
USABLE = ("ok", "duplicate")
HASH_BITS = 64
# Multi-index hashing looks up each part of a hash in a table of its own.
HASH_PARTS = 4
MAX_CANDIDATES = 32
# Pairs (m, 2) of image ids → whether each pair is a copy (m,).
ConfirmPairs = Callable[[npt.NDArray[np.object_]], npt.NDArray[np.bool_]]


def near_duplicate_pairs(
    phashes: npt.NDArray[np.uint64],
    queries: npt.NDArray[np.int64],
    bits: int,
    max_per_query: int = MAX_CANDIDATES,
    splits: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return (m, 2) index pairs whose 64-bit perceptual hashes differ in at most `bits` bits: candidates for a comparison of pixels.

    Args:
        phashes: (n,) hashes of all images.
        queries: indices into `phashes`, the first index of each pair.
        bits: Hamming distance, 0 to 64.
        max_per_query: number of pairs of a query at most, the smallest distances first. Images of one layout have similar hashes: all
            pairs of a set of thousands could not be compared.
        splits: (n,) number of the split of each image; a pair has its second image in a split of a lower number. None for all pairs.

    Source: Norouzi, Punjani and Fleet 2012 (multi-index hashing): two hashes within `bits` have a quarter within bits / 4.

    """
    if not len(queries):
        return np.empty((0, 2), dtype=np.int64)
    codes = np.ascontiguousarray(phashes.astype("<u8")).view(np.uint8).reshape(-1, HASH_BITS // 8)
    index = faiss.IndexBinaryMultiHash(HASH_BITS, HASH_PARTS, HASH_BITS // HASH_PARTS)
    index.nflip = bits // HASH_PARTS
    index.add(codes)
    # faiss keeps distances strictly below the radius.
    limits, distances, neighbors = index.range_search(codes[queries], bits + 1)
    query = np.repeat(np.arange(len(queries)), np.diff(limits).astype(np.int64))
    other = queries[query] != neighbors
    # Before the limit, so that images of the same split do not displace a copy in another one.
    if splits is not None:
        other &= splits[neighbors] < splits[queries[query]]
    query, distances, neighbors = query[other], distances[other], neighbors[other].astype(np.int64)
    order = np.lexsort((neighbors, distances, query))
    rank = np.arange(len(order)) - np.searchsorted(query[order], query[order])
    nearest = order[rank < max_per_query]
    return np.stack([queries[query[nearest]], neighbors[nearest]], axis=1)


def oldest_members(num_images: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each image the lowest index in its group, where pairs connect images into groups.

    Args:
        num_images: number of images; their indices ascend from the oldest to the newest.
        pairs: (m, 2) indices of images that belong to the same group.

    Returns:
        (num_images,) index of the oldest member of each image's group; its own index for an image in no pair.

    """
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(num_images, num_images))
    _, group = connected_components(graph, directed=False)
    _, oldest = np.unique(group, return_index=True)
    return oldest[group]


def split_of(group: str, shares: Mapping[str, float]) -> str:
    """Return the split of a duplicate group.

    Args:
        group: SHA-256 of the group's oldest image, in hex; its position in the range of all hashes decides.
        shares: share of each split; together 1.

    """
    position = int(group[:13], 16) / 16**13
    for split in SPLITS:
        position -= shares[split]
        if position < 0:
            return split
    return SPLITS[0]


def assign_groups_and_splits(
    events: pd.DataFrame, new_rows: pd.DataFrame, bits: int, shares: Mapping[str, float] | None, confirm: ConfirmPairs
) -> pd.DataFrame:
    """Return the new rows with duplicate_group, split, status and has_image set, then the old rows that they change.

    Rows with the same id are one image: one path keeps it, the others are duplicates. An image whose duplicate group is joined to
    an older group takes the split of that group.

    Args:
        events: the catalogue's rows so far, oldest first.
        new_rows: rows to append to them.
        bits: see `near_duplicate_pairs`.
        shares: share of each split; None where the folder has splits of its own, which stay.
        confirm: decides which pairs with similar hashes are copies.

    """
    rows = pd.concat([events, new_rows], ignore_index=True) if len(events) else new_rows.copy()
    usable = rows[rows["status"].isin(USABLE)]
    oldest = usable.drop_duplicates("id")
    groups = _duplicate_groups(usable, oldest, len(events), bits, confirm)

    current = rows.drop_duplicates("path", keep="last")
    current = current[current["status"].isin(USABLE)]
    assigned = _mark_duplicates(current, own_splits=shares is None).assign(duplicate_group=current["id"].map(groups))
    if shares is not None:
        assigned["split"] = [split_of(group, shares) for group in assigned["duplicate_group"]]

    old = assigned[assigned.index < len(events)]
    columns = ["duplicate_group", "split", "status"]
    changed = (old[columns].to_numpy() != current.loc[old.index, columns].to_numpy()).any(axis=1)
    new = rows.iloc[len(events) :].copy()
    new.loc[assigned.index[assigned.index >= len(events)]] = assigned[assigned.index >= len(events)]
    new["has_image"] = new.index.isin(oldest.index)
    return pd.concat([new, old[changed].sort_index().assign(has_image=False)], ignore_index=True)


def _duplicate_groups(usable: pd.DataFrame, oldest: pd.DataFrame, num_old: int, bits: int, confirm: ConfirmPairs) -> dict[str, str]:
    """Return the duplicate group of each image id: the id of the oldest image in the group.

    Args:
        usable: all rows of usable images, oldest first, with the row number as index.
        oldest: the first of these rows for each id.
        num_old: rows from this number on are new.
        bits: see `near_duplicate_pairs`.
        confirm: decides which pairs with similar hashes are copies.

    """
    position = {id: i for i, id in enumerate(oldest["id"])}
    # An image that comes back is compared again, because images that came in the meantime may be near it.
    is_new = np.flatnonzero(oldest["id"].isin(set(usable["id"][usable.index >= num_old])))
    new_pairs = np.unique(np.sort(near_duplicate_pairs(oldest["phash"].to_numpy(np.uint64), is_new, bits), axis=1), axis=0)
    if len(new_pairs):
        new_pairs = new_pairs[confirm(oldest["id"].to_numpy()[new_pairs])]
    # Images that were once in the same group stay together.
    written = usable[usable["duplicate_group"].ne("")][["id", "duplicate_group"]].drop_duplicates()
    old_pairs = np.stack([written[name].map(position).to_numpy(np.int64) for name in ("id", "duplicate_group")], axis=1)
    members = oldest_members(len(oldest), np.concatenate([old_pairs, new_pairs]))
    return dict(zip(oldest["id"], oldest["id"].to_numpy()[members], strict=True))


def _mark_duplicates(current: pd.DataFrame, own_splits: bool) -> pd.DataFrame:
    """Return the rows with status and reason set: one path of each image id is ok, the others are duplicates.

    The path that had the image before keeps it. In a folder with its own splits, a path in an earlier split takes precedence.
    """
    # Without rows, pandas would keep the string type of the split names.
    precedence = current["split"].map(SPLITS.index).astype(np.int64) if own_splits else 0
    current = current.iloc[np.argsort((2 * precedence + current["status"].ne("ok")).to_numpy(), kind="stable")]
    keepers = current.drop_duplicates("id").set_index("id")
    is_duplicate = current["id"].duplicated().to_numpy()
    same_class = current["id"].map(keepers["label"]) == current["label"]
    reasons = [
        f"same image as {path}{'' if same else ', which is in another class'}"
        for path, same in zip(current["id"].map(keepers["path"]), same_class, strict=True)
    ]
    return current.assign(
        status=np.where(is_duplicate, "duplicate", "ok"),
        reason=np.where(is_duplicate, reasons, current["reason"].where(current["status"] == "ok", "")),
    )

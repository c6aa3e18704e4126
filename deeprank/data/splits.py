"""Which images belong together, and which of train, val and test they are in: a function of content alone."""

from collections.abc import Mapping, Sequence

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd

SPLITS = ("train", "val", "test")


def near_duplicates(phashes: npt.NDArray[np.uint64], queries: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    """Return (m, 2) index pairs whose 64-bit perceptual hashes differ in at most `bits` bits.

    Args:
        phashes: (n,) hashes of all images.
        queries: indices into `phashes` to find the neighbors of; pairs among the others are not looked for.
        bits: Hamming distance, 0 to 64.

    """
    if not len(queries):
        return np.empty((0, 2), dtype=np.int64)
    codes = np.ascontiguousarray(phashes.astype("<u8")).view(np.uint8).reshape(-1, 8)
    index = faiss.IndexBinaryFlat(64)
    index.add(codes)
    # faiss keeps distances strictly below the radius.
    limits, _, found = index.range_search(codes[queries], bits + 1)
    pairs = np.stack([np.repeat(queries, np.diff(limits).astype(np.int64)), found.astype(np.int64)], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def join_groups(groups: Sequence[int], pairs: npt.NDArray[np.int64]) -> list[int]:
    """Join the groups of each pair; a group is named by the index of its oldest member (union-find).

    Args:
        groups: for each image, oldest first, the index of its group's oldest member.
        pairs: (m, 2) indices of images that belong together.

    """
    root = list(groups)

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for a, b in pairs.tolist():
        first, second = sorted((find(a), find(b)))
        root[second] = first
    return [find(item) for item in range(len(root))]


def split_of(identity: str, shares: Mapping[str, float]) -> str:
    """Return the split that an image's SHA-256 falls into, given the share of each split."""
    position = int(identity[:13], 16) / 16**13
    for split in SPLITS:
        position -= shares[split]
        if position < 0:
            return split
    return SPLITS[0]


def place(events: pd.DataFrame, fresh: pd.DataFrame, bits: int, shares: Mapping[str, float] | None) -> pd.DataFrame:
    """Return `fresh` with group, split, status and image_row set, followed by the old rows that these change.

    Identical bytes are one image: the first path keeps it, of a folder's own splits in the earliest one, the others are
    `duplicate`. An image whose group joined an older one takes that group's split.

    Args:
        events: the catalogue's rows so far, oldest first.
        fresh: new rows, to be appended after them.
        bits: see `near_duplicates`.
        shares: of the splits; None where the folder has splits of its own, which stay.

    """
    everything = pd.concat([events, fresh], ignore_index=True) if len(events) else fresh.copy()
    usable = everything["status"].isin(["ok", "duplicate"])
    oldest = everything[usable].drop_duplicates("id")
    position = {identity: i for i, identity in enumerate(oldest["id"])}
    # An image that comes back is looked at again: what came while it was away may be near it.
    read = set(everything["id"][usable & (everything.index >= len(events))])
    new = np.flatnonzero(oldest["id"].isin(read))
    pairs = near_duplicates(oldest["phash"].to_numpy(np.uint64), new, bits)
    # Every join ever written down stays one.
    written = everything[usable & everything["group"].ne("")][["id", "group"]].drop_duplicates()
    before = np.stack([written[name].map(position).to_numpy(np.int64) for name in ("id", "group")], axis=1)
    joined = join_groups(range(len(oldest)), np.concatenate([before, pairs]))
    group_of = dict(zip(oldest["id"], oldest["id"].to_numpy()[joined], strict=True))
    image_row = dict(zip(oldest["id"], oldest.index, strict=True))

    current = everything.drop_duplicates("path", keep="last")
    current = current[usable.loc[current.index]]
    # The path that has the image keeps it, whatever its name; but train loses none to val or test.
    # Of no image, pandas would keep the type of the names.
    earlier = current["split"].map(SPLITS.index).astype(np.int64) if shares is None else 0
    current = current.iloc[np.argsort((2 * earlier + current["status"].ne("ok")).to_numpy(), kind="stable")]
    keeper = current.drop_duplicates("id").set_index("id")
    again = current["id"].duplicated().to_numpy()
    kept_path, kept_label = current["id"].map(keeper["path"]), current["id"].map(keeper["label"])
    elsewhere = np.where(kept_label != current["label"], ", which is in another class", "")
    twice = [f"same image as {path}{where}" for path, where in zip(kept_path, elsewhere, strict=True)]
    placed = current.assign(
        group=current["id"].map(group_of),
        image_row=current["id"].map(image_row),
        status=np.where(again, "duplicate", "ok"),
        reason=np.where(again, twice, current["reason"].where(current["status"] == "ok", "")),
    )
    if shares is not None:
        placed["split"] = [split_of(group, shares) for group in placed["group"]]
    old = placed[placed.index < len(events)]
    columns = ["group", "split", "status"]
    differs = (old[columns].to_numpy() != current.loc[old.index, columns].to_numpy()).any(axis=1)
    ready = everything.iloc[len(events) :].copy()
    ready.loc[placed.index[placed.index >= len(events)]] = placed[placed.index >= len(events)]
    return pd.concat([ready, old[differs].sort_index()], ignore_index=True)

"""Confirm near-duplicates of an ingest by their pixels: those of new images lie in the spool, those of older ones in the catalogue."""

from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from typing import IO

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from deeprank.data.catalogue import Catalogue, open_table
from deeprank.data.copies import MIN_COPY_SIMILARITY, confirm_copies
from deeprank.data.splits import ConfirmPairs
from deeprank.row_numbers import EventRows


def confirm_by_pixels(uri: str, events: pd.DataFrame, read: pd.DataFrame, spool: IO[bytes], progress: bool) -> ConfirmPairs:
    """Return the function that decides which pairs of image ids are copies.

    Args:
        uri: of the catalogue's table, which may not exist yet.
        events: the rows of the table.
        read: the rows of the new files, in the order of the spool.
        spool: their rows with JPEGs as an Arrow file.
        progress: whether to show a progress bar.

    """
    stored = events[events["image_row"] >= 0].drop_duplicates("id").set_index("id")["image_row"]
    catalogue = Catalogue(uri, open_table(uri).version) if len(stored) else None
    spooled = {key: row for row, key in reversed(list(enumerate(read["id"])))}

    def confirm(pairs: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
        ids, numbers = np.unique(pairs, return_inverse=True)
        spool.flush()
        # Mapped into memory, an image is read without the others of its batch.
        jpegs = pa.ipc.open_file(pa.py_buffer(mmap(spool.fileno(), 0, access=ACCESS_READ))).read_all().column("image")

        def read_jpegs(requested: Sequence[int]) -> list[bytes]:
            return [read_jpeg(str(ids[number])) for number in requested]

        def read_jpeg(key: str) -> bytes:
            if catalogue and key in stored.index:
                return catalogue.read_event_jpegs(EventRows(np.array([stored[key]])))[0]
            return jpegs[spooled[key]].as_py()

        text = f"comparing {len(pairs):,} pairs of similar images" if progress else None
        return np.asarray(confirm_copies(numbers.reshape(pairs.shape).astype(np.int64), read_jpegs, text) >= MIN_COPY_SIMILARITY)

    return confirm

"""The catalogue: a versioned, append-only Lance table of every image ever seen.

Each row is an event of a path: seen, changed, moved to another group, removed. The last event of a path is its present
state, so a new version costs its new rows only and an old version stays readable for ever.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import IO, Any

import lance
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from deeprank.errors import DataError

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),  # relative to the source folder, with forward slashes
        pa.field("id", pa.string()),  # SHA-256 of the file's bytes; empty where it could not be read
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("label", pa.string()),  # folder path of the class, e.g. Fruit/Apple/Golden-Delicious
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("phash", pa.uint64()),
        pa.field("group", pa.string()),  # id of the oldest image of its near-duplicate group
        pa.field("split", pa.string()),
        pa.field("status", pa.string()),  # ok, duplicate, rejected, removed
        pa.field("reason", pa.string()),
        pa.field("image_row", pa.int64()),  # the row that holds the image; -1 for none
        pa.field("image", pa.large_binary()),
    ]
)
COLUMNS = [name for name in SCHEMA.names if name != "image"]


def exists(uri: str) -> bool:
    """Say whether there is a table."""
    try:
        lance.dataset(uri)
    except (ValueError, FileNotFoundError):
        return False
    return True


def versions(uri: str) -> dict[int, datetime]:
    """Return when each version of a table was written, oldest first; none where there is no table."""
    entries: list[Any] = lance.dataset(uri).versions() if exists(uri) else []
    return {entry["version"]: entry["timestamp"] for entry in entries}


def read_events(uri: str, version: int | None = None) -> pd.DataFrame:
    """Return all rows of a table version without the images, oldest first, with COLUMNS as columns."""
    return lance.dataset(uri, version=version).to_table(columns=COLUMNS).to_pandas()


def latest(events: pd.DataFrame) -> pd.DataFrame:
    """Return the present state of each path: its last event, in order of path."""
    return events.drop_duplicates("path", keep="last").sort_values("path", kind="stable").reset_index(drop=True)


def append(uri: str, rows: pd.DataFrame, spool: IO[bytes], offset: int) -> None:
    """Append placed rows in one commit; each image's bytes are stored with its first row only.

    Args:
        uri: of the table, made where there is none.
        rows: with COLUMNS as columns.
        spool: an Arrow file of SCHEMA, from which the images of the first rows come.
        offset: how many rows the table has.

    """
    read = pa.ipc.open_file(spool)

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for i in range(read.num_record_batches):
            images = read.get_batch(i).column("image")
            part = rows.iloc[start : start + len(images)]
            first = pa.array(part["image_row"].to_numpy() == np.arange(offset + start, offset + start + len(images)))
            start += len(images)
            yield _batch(part, pc.if_else(first, images, pa.scalar(None, images.type)))
        rest = rows.iloc[start:]
        if len(rest):
            yield _batch(rest, pa.nulls(len(rest), pa.large_binary()))

    lance.write_dataset(pa.RecordBatchReader.from_batches(SCHEMA, batches()), uri, schema=SCHEMA, mode="append" if offset else "create")


def exclude(catalogue: "Catalogue", rows: Sequence[int], reasons: Sequence[str]) -> "Catalogue":
    """Return a new version in which rows of `state` are rejected, each for its reason; the old version stays as it was.

    Args:
        catalogue: the newest version.
        rows: of its state.
        reasons: one a row.

    Raises:
        DataError: it is an old version whose frame has some of them.

    """
    if not len(rows):
        return catalogue
    newest = lance.dataset(catalogue.uri).version
    if newest != catalogue.version:
        # What is not in the frame need not be left out of it.
        if (catalogue.state["status"].iloc[list(rows)] != "ok").all():
            return catalogue
        raise DataError(
            f"{catalogue.uri}: images can be left out of the newest version, {newest}, not of the old version {catalogue.version}: "
            "set leakage.on_leak=warn, or take ingest.version away"
        )
    events = catalogue.state.iloc[list(rows)].assign(status="rejected", reason=list(reasons))
    lance.write_dataset(pa.Table.from_batches([_batch(events, pa.nulls(len(events), pa.large_binary()))]), catalogue.uri, mode="append")
    return Catalogue(catalogue.uri, lance.dataset(catalogue.uri).version)


def _batch(rows: pd.DataFrame, images: pa.Array) -> pa.RecordBatch:
    small = pa.Table.from_pandas(rows[COLUMNS], pa.schema([SCHEMA.field(name) for name in COLUMNS]), preserve_index=False)
    # Rows of several origins come in several chunks.
    return pa.RecordBatch.from_arrays([*(column.combine_chunks() for column in small.columns), images], schema=SCHEMA)


@dataclass(frozen=True)
class Catalogue:
    """One version of a catalogue.

    Attributes:
        uri: of the Lance table; local or an object store.
        version: of the Lance table.

    """

    uri: str
    version: int

    @cached_property
    def state(self) -> pd.DataFrame:
        """The present state of every path that is not removed, whatever its status."""
        frame = latest(read_events(self.uri, self.version))
        return frame[frame["status"] != "removed"].reset_index(drop=True)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The usable images in order of path; triplets and embeddings index into this."""
        return self.state[self.state["status"] == "ok"].reset_index(drop=True)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what anything downstream depends on: path, id, label, group and split of each usable image."""
        rows = self.frame[["path", "id", "label", "group", "split"]]
        return hashlib.sha256(rows.to_csv(index=False, header=False).encode()).hexdigest()

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the indices into `frame` of a split."""
        return np.flatnonzero(self.frame["split"] == split)

    def pin(self, tag: str) -> None:
        """Give this version a name of Lance's, so that no clean-up of old versions takes it."""
        tags = lance.dataset(self.uri).tags
        if tag in tags.list():
            tags.update(tag, self.version)
        else:
            tags.create(tag, self.version)

    @cached_property
    def _dataset(self) -> lance.LanceDataset:
        return lance.dataset(self.uri, version=self.version)

    def images(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[bytes]:
        """Return the stored JPEGs of rows of `frame`, in their order.

        Raises:
            DataError: the table no longer holds one of them.

        """
        return self.stored(self.frame["image_row"].to_numpy()[np.asarray(rows, dtype=np.int64)])

    def stored(self, image_rows: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the stored JPEGs of rows of the table, `image_row` of an image, in their order; the frame is not read.

        Raises:
            DataError: the table no longer holds one of them.

        """
        unique, where = np.unique(image_rows, return_inverse=True)
        images = self._dataset.take(unique.tolist(), columns=["image"])["image"].to_pylist()
        if any(image is None for image in images):
            raise DataError(f"catalogue {self.uri} version {self.version} has lost images; ingest the folder anew")
        return [images[i] for i in where]

"""The catalogue: a versioned, append-only Lance table of all images that were ever ingested from a folder.

Each row is an event of a path: new, changed, in another duplicate group, removed. The last event of a path is its present state.
A new version therefore costs only its new rows, and every old version stays readable.
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
from deeprank.row_numbers import CatalogueRows, EventRows

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),  # relative to the source folder, with forward slashes
        pa.field("id", pa.string()),  # SHA-256 of the file's bytes; empty where the file could not be read or its head is not of an image
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("ctime_ns", pa.int64()),  # changes with the content even where size and mtime_ns are set back
        pa.field("label", pa.string()),  # folder path of the class in Unicode NFC, e.g. Fruit/Apple/Golden-Delicious
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("phash", pa.uint64()),
        pa.field("duplicate_group", pa.string()),  # id of the oldest image of the near-duplicate group
        pa.field("split", pa.string()),
        pa.field("status", pa.string()),  # ok, duplicate, rejected, removed
        pa.field("reason", pa.string()),  # of the status; or what was converted
        pa.field("image_row", pa.int64()),  # the event row that holds the JPEG; -1 for none
        pa.field("image", pa.large_binary()),  # the JPEG, in the first row of each id only
    ]
)
# Split of an image that is excluded from this run.
EXCLUDED = "excluded"
COLUMNS = [name for name in SCHEMA.names if name != "image"]


def table_exists(uri: str) -> bool:
    """Return whether there is a Lance table at a URI."""
    try:
        lance.dataset(uri)
    except (ValueError, FileNotFoundError):
        return False
    return True


def table_versions(uri: str) -> dict[int, datetime]:
    """Return the time at which each version of a table was written, oldest first; empty where there is no table."""
    entries: list[Any] = lance.dataset(uri).versions() if table_exists(uri) else []
    return {entry["version"]: entry["timestamp"] for entry in entries}


def open_table(uri: str, version: int | None = None) -> lance.LanceDataset:
    """Open a catalogue's table.

    Args:
        uri: of the table.
        version: of the table; None for the newest.

    Raises:
        DataError: an older version of this project wrote the table.

    """
    dataset = lance.dataset(uri, version=version)
    missing = [name for name in SCHEMA.names if name not in dataset.schema.names]
    if missing:
        raise DataError(
            f"{uri}: an older version of deeprank wrote this catalogue; it lacks the column {', '.join(missing)}. "
            "Remove this table, or set DEEPRANK_HOME to another state folder, and ingest the folder again"
        )
    return dataset


def read_events(uri: str, version: int | None = None) -> pd.DataFrame:
    """Return all event rows of a table version, oldest first, with COLUMNS as columns.

    Raises:
        DataError: an older version of this project wrote the table.

    """
    return open_table(uri, version).to_table(columns=COLUMNS).to_pandas()


def latest_events(events: pd.DataFrame) -> pd.DataFrame:
    """Return the last event of each path, which is its present state, in order of path."""
    return events.drop_duplicates("path", keep="last").sort_values("path", kind="stable").reset_index(drop=True)


def append_events(uri: str, events: pd.DataFrame, spool: IO[bytes], num_rows: int) -> None:
    """Append event rows in one commit; each JPEG is stored in the first row of its image only.

    Args:
        uri: of the table, created where there is none.
        events: the rows to append, with COLUMNS as columns.
        spool: an Arrow file of SCHEMA that holds the JPEGs of the first of these rows, in their order.
        num_rows: how many rows the table has now.

    """
    reader = pa.ipc.open_file(spool)

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for i in range(reader.num_record_batches):
            jpegs = reader.get_batch(i).column("image")
            chunk = events.iloc[start : start + len(jpegs)]
            is_first = pa.array(chunk["image_row"].to_numpy() == np.arange(num_rows + start, num_rows + start + len(jpegs)))
            start += len(jpegs)
            yield _record_batch(chunk, pc.if_else(is_first, jpegs, pa.scalar(None, jpegs.type)))
        rest = events.iloc[start:]
        if len(rest):
            yield _record_batch(rest, pa.nulls(len(rest), pa.large_binary()))

    mode = "append" if num_rows else "create"
    lance.write_dataset(pa.RecordBatchReader.from_batches(SCHEMA, batches()), uri, schema=SCHEMA, mode=mode)


def _record_batch(events: pd.DataFrame, jpegs: pa.Array) -> pa.RecordBatch:
    """Return event rows and their JPEGs as a batch of SCHEMA."""
    table = pa.Table.from_pandas(events[COLUMNS], pa.schema([SCHEMA.field(name) for name in COLUMNS]), preserve_index=False)
    # A concatenated frame becomes columns of several chunks.
    return pa.RecordBatch.from_arrays([*(column.combine_chunks() for column in table.columns), jpegs], schema=SCHEMA)


@dataclass(frozen=True)
class Catalogue:
    """One version of a catalogue; every access raises DataError where an older version of this project wrote the table.

    Attributes:
        uri: of the Lance table, local or on an object store.
        version: of the Lance table.
        excluded: ids of images that are in no split: they are searched and clustered, but not trained on or evaluated with.

    """

    uri: str
    version: int
    excluded: frozenset[str] = frozenset()

    @cached_property
    def state(self) -> pd.DataFrame:
        """The last event of every path that is not removed, whatever its status, in order of path; columns COLUMNS."""
        events = latest_events(read_events(self.uri, self.version))
        return events[events["status"] != "removed"].reset_index(drop=True)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The usable images in order of path; CatalogueRows are rows of this. The split of excluded images is EXCLUDED."""
        frame = self.state[self.state["status"] == "ok"].reset_index(drop=True)
        if self.excluded:
            frame["split"] = frame["split"].where(~frame["id"].isin(self.excluded), EXCLUDED)
        return frame

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that later steps depend on: path, id, label, duplicate group and split of each usable image."""
        table = self.frame[["path", "id", "label", "duplicate_group", "split"]]
        return hashlib.sha256(table.to_csv(index=False, header=False).encode()).hexdigest()

    def rows(self, split: str) -> CatalogueRows:
        """Return the rows of `frame` that are in a split, ascending."""
        return CatalogueRows(np.flatnonzero(self.frame["split"] == split))

    def pin(self, tag: str) -> None:
        """Give this version a Lance tag, so that no clean-up of old versions removes it."""
        tags = open_table(self.uri).tags
        if tag in tags.list():
            tags.update(tag, self.version)
        else:
            tags.create(tag, self.version)

    @cached_property
    def _dataset(self) -> lance.LanceDataset:
        return open_table(self.uri, self.version)

    def read_jpegs(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[bytes]:
        """Return the stored JPEGs of rows of `frame`, in the order of `rows`, which may repeat.

        Raises:
            DataError: the table no longer holds one of them.

        """
        image_rows = self.frame["image_row"].to_numpy()[np.asarray(rows, dtype=np.int64)]
        return self.read_event_jpegs(EventRows(image_rows))

    def read_event_jpegs(self, image_rows: EventRows) -> list[bytes]:
        """Return the stored JPEGs of event rows of the table, in their order, without reading `frame`.

        Args:
            image_rows: values of the column `image_row`.

        Raises:
            DataError: the table no longer holds one of them.

        """
        unique, inverse = np.unique(image_rows, return_inverse=True)
        jpegs = self._dataset.take(unique.tolist(), columns=["image"])["image"].to_pylist()
        if any(jpeg is None for jpeg in jpegs):
            raise DataError(f"catalogue {self.uri} version {self.version} has lost images; ingest the folder again")
        return [jpegs[i] for i in inverse]

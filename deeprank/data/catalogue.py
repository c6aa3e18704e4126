"""The catalogue: a versioned, append-only Lance table of all images that were ever ingested from a folder.

Each row is an event of a path: new, changed, in another duplicate group, removed. The last event of a path is its present state.
A new version therefore costs only its new rows, and every old version stays readable.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import lance
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from deeprank.data.store import commit_rows, open_table, table_exists
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
        pa.field("has_image", pa.bool_()),  # whether this row holds the JPEG; the first row of each image does
        pa.field("image", pa.large_binary()),
    ]
)
# Split of an image that is excluded from this run.
EXCLUDED = "excluded"
COLUMNS = [name for name in SCHEMA.names if name != "image"]
ROWS_PER_BATCH = 256


def open_catalogue(uri: str, version: int | None = None) -> lance.LanceDataset:
    """Open a catalogue's table.

    Args:
        uri: of the table.
        version: of the table; None for the newest.

    Raises:
        DataError: there is no such table, or an older version of this project wrote it.

    """
    dataset = open_table(uri, version)
    missing = [name for name in SCHEMA.names if name not in dataset.schema.names]
    if missing:
        raise DataError(
            f"{uri}: an older version of deeprank wrote this catalogue; it lacks the column {', '.join(missing)}. "
            "Remove this table, or set DEEPRANK_HOME to another state folder, and ingest the folder again"
        )
    return dataset


def read_events(uri: str, version: int | None = None) -> pd.DataFrame:
    """Return all event rows of a table version, oldest first.

    The columns are COLUMNS and `image_row`: the event row that holds the image with the row's id; -1 for none. It is found by the
    id, because the number of a row is known only once it is written.

    Raises:
        DataError: there is no such table, or an older version of this project wrote it.

    """
    return with_image_rows(open_catalogue(uri, version).to_table(columns=COLUMNS).to_pandas())


def with_image_rows(events: pd.DataFrame) -> pd.DataFrame:
    """Return all event rows of a table with the column `image_row`, see `read_events`."""
    holders = events.loc[events["has_image"], "id"].drop_duplicates()
    image_rows = events["id"].map(pd.Series(holders.index, index=holders.to_numpy(), dtype=np.int64))
    return events.assign(image_row=image_rows.fillna(-1).astype(np.int64))


def newest_events(uri: str) -> tuple[int, pd.DataFrame]:
    """Return the newest version of a catalogue's table, and its event rows; 0 and no rows where there is no table."""
    if not table_exists(uri):
        return 0, pd.DataFrame(columns=[*COLUMNS, "image_row"]).astype({"has_image": bool})
    version = open_catalogue(uri).version
    return version, read_events(uri, version)


def latest_events(events: pd.DataFrame) -> pd.DataFrame:
    """Return the last event of each path, which is its present state, in order of path."""
    return events.drop_duplicates("path", keep="last").sort_values("path", kind="stable").reset_index(drop=True)


def commit_events(uri: str, events: pd.DataFrame, read_jpeg: Callable[[str], bytes], version: int) -> bool:
    """Append event rows, if the table is still at a version.

    Args:
        uri: of the table, created where there is none.
        events: the rows to append, with COLUMNS as columns.
        read_jpeg: returns the JPEG of an image by its id.
        version: that the rows were made for; 0 for no table.

    Returns:
        False if another process has committed in the meantime: nothing was appended.

    """

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(events), ROWS_PER_BATCH):
            rows = events.iloc[start : start + ROWS_PER_BATCH]
            jpegs = [read_jpeg(key) if has_image else None for key, has_image in zip(rows["id"], rows["has_image"], strict=True)]
            table = pa.Table.from_pandas(rows[COLUMNS], pa.schema([SCHEMA.field(name) for name in COLUMNS]), preserve_index=False)
            # A concatenated frame becomes columns of several chunks.
            columns = [column.combine_chunks() for column in table.columns]
            yield pa.RecordBatch.from_arrays([*columns, pa.array(jpegs, pa.large_binary())], schema=SCHEMA)

    return commit_rows(uri, batches(), SCHEMA, version)


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
        """The last event of every path that is not removed, whatever its status, in order of path; columns as of `read_events`."""
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
        tags = open_catalogue(self.uri).tags
        if tag in tags.list():
            tags.update(tag, self.version)
        else:
            tags.create(tag, self.version)

    @cached_property
    def _dataset(self) -> lance.LanceDataset:
        return open_catalogue(self.uri, self.version)

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

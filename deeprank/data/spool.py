"""Rows and JPEGs of files that were read, on disk until they are in the catalogue."""

import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from mmap import ACCESS_READ, mmap
from types import TracebackType
from typing import Self

import pandas as pd
import pyarrow as pa

from deeprank.data.catalogue import COLUMNS, SCHEMA

WITHOUT_IMAGES = pa.ipc.IpcReadOptions(included_fields=[SCHEMA.names.index(name) for name in COLUMNS])


class Spool:
    """A temporary Arrow file of SCHEMA; write all rows, then read."""

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile()
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append rows."""
        self._writer.write_batch(pa.RecordBatch.from_pylist(list(rows), SCHEMA))

    @cached_property
    def rows(self) -> pd.DataFrame:
        """All rows, with COLUMNS as columns."""
        self._writer.close()
        self._file.flush()
        return pa.ipc.open_file(self._file, options=WITHOUT_IMAGES).read_all().to_pandas()

    def read_jpeg(self, image_id: str) -> bytes:
        """Return the JPEG of an image."""
        jpeg: bytes = self._jpegs[self._row_of[image_id]].as_py()
        return jpeg

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._row_of

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.rows["id"])}

    @cached_property
    def _jpegs(self) -> pa.ChunkedArray:
        # Mapped into memory, an image is read without the others of its batch.
        return pa.ipc.open_file(pa.py_buffer(mmap(self._file.fileno(), 0, access=ACCESS_READ))).read_all().column("image")

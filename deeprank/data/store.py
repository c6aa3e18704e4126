"""Lance tables: every table is opened, created and appended to here, in a folder or an object store."""

import re
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import lance
import obstore
import pyarrow as pa
from lance import FragmentMetadata, LanceOperation
from lance.commit import CommitConflictError
from lance.fragment import write_fragments
from obstore.exceptions import AlreadyExistsError, BaseError

from deeprank.data.object_store import as_store_error, locate, remove, storage_options
from deeprank.errors import StoreError


def table_exists(uri: str) -> bool:
    """Return whether there is a table.

    Raises:
        StoreError: the store cannot be read.

    """
    return _open(uri) is not None


def table_versions(uri: str) -> dict[int, datetime]:
    """Return the time at which each version of a table was written, oldest first; empty where there is no table."""
    table = _open(uri)
    entries: list[Any] = table.versions() if table else []
    return {entry["version"]: entry["timestamp"] for entry in entries}


def open_table(uri: str, version: int | None = None) -> lance.LanceDataset:
    """Open a table.

    Args:
        uri: of the table.
        version: of the table; None for the newest.

    Raises:
        StoreError: there is no such table or version, or the store cannot be read.

    """
    table = _open(uri, version)
    if table is None:
        raise StoreError(f"{uri}: there is no {'table' if version is None else f'version {version} of this table'}")
    return table


def commit_rows(uri: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema, version: int) -> bool:
    """Append rows if the table is still at a version; the new rows are its last ones.

    Args:
        uri: of the table.
        batches: the rows.
        schema: of the table.
        version: the table's version that the rows were made for; 0 for no table.

    Returns:
        False if another process has committed in the meantime: nothing was appended.

    Raises:
        StoreError: the store cannot be written.

    """
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    options = storage_options(uri)
    try:
        new = write_fragments(reader, uri, schema, mode="append" if version else "create", storage_options=options)
        if version:
            is_committed = _commit_next_version(uri, new, schema, version)
        else:
            is_committed = _commit_first_version(uri, LanceOperation.Overwrite(schema, new))
        if not is_committed:
            for file in (file for fragment in new for file in fragment.data_files()):
                remove(f"{uri}/data/{file.path}")
    except (ValueError, OSError, BaseError) as error:
        if not version and "Dataset already exists" in str(error):
            return False
        raise as_store_error(uri, error) from None
    return is_committed


def create_table(uri: str, schema: pa.Schema) -> None:
    """Create an empty table where there is none; of several processes that do so at once, one creates it."""
    if not table_exists(uri):
        commit_rows(uri, iter(()), schema, 0)


def append_rows(uri: str, rows: pa.Table) -> None:
    """Append rows to a table, whatever other processes append at the same time.

    Raises:
        StoreError: the store cannot be written.

    """
    try:
        lance.write_dataset(rows, uri, mode="append", storage_options=storage_options(uri))
    except (ValueError, OSError) as error:
        raise as_store_error(uri, error) from None


def _open(uri: str, version: int | None = None) -> lance.LanceDataset | None:
    """Return a table; None if there is none."""
    try:
        return lance.dataset(uri, version=version, storage_options=storage_options(uri))
    except (ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError) or re.search(r"was not found|Not found", str(error)):
            return None
        raise as_store_error(uri, error) from None


def _commit_next_version(uri: str, new: list[FragmentMetadata], schema: pa.Schema, version: int) -> bool:
    """Add rows that are written already as the version after the given one; returns False if there is another one."""
    old = [fragment.metadata for fragment in open_table(uri, version).get_fragments()]
    next_id = max((fragment.id for fragment in old), default=-1) + 1
    for number, fragment in enumerate(new):
        fragment.id = next_id + number
    # Unlike an append, a merge is refused after any other commit.
    operation = LanceOperation.Merge([*old, *new], schema)
    try:
        lance.LanceDataset.commit(uri, operation, read_version=version, storage_options=storage_options(uri), max_retries=0)
    except CommitConflictError:
        return False
    return True


def _commit_first_version(uri: str, operation: LanceOperation.Overwrite) -> bool:
    """Create a table from rows that are written already; returns False if it exists.

    Lance's own creation overwrites a table that another process creates at the same moment. So the first version is committed in a
    temporary folder, and its manifest, which makes the table, is copied as a new object.
    """
    with tempfile.TemporaryDirectory() as temporary:
        lance.LanceDataset.commit(temporary, operation)
        for name in ("_transactions", "_versions"):
            for file in (file for file in Path(temporary, name).iterdir() if file.suffix != ".json"):
                bucket, key = locate(f"{uri}/{name}/{file.name}")
                try:
                    obstore.put(bucket, key, file.read_bytes(), mode="create")
                except AlreadyExistsError:
                    # Of a request that was repeated after an unclear answer, the object is this process's own.
                    if bytes(obstore.get(bucket, key).bytes()) != file.read_bytes():
                        return False
    return True

"""Lance tables and their object store: every table is opened, created and appended to here."""

import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from errno import ENOENT
from functools import lru_cache
from pathlib import Path
from typing import Any

import lance
import obstore
import pyarrow as pa
from lance import FragmentMetadata, LanceOperation
from lance.commit import CommitConflictError
from lance.fragment import write_fragments
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from deeprank.errors import StoreError

# Written once and then again, to see whether an object store keeps the first of two writers.
PROBE = ".deeprank-probe"
# Parts of the messages of Lance and obstore, and what they mean.
REASONS = {
    "NoSuchBucket|NoSuchContainer|bucket does not exist": "there is no such bucket",
    "AccessDenied|InvalidAccessKey|SignatureDoesNotMatch|Forbidden|Unauthenticated|Unauthorized|\\b40[13]\\b": (
        "access denied; check the credentials of the artifact store, or of the environment"
    ),
    "error sending request|tcp connect|Connection refused|dns error|timed out": "no connection to the object store; check its endpoint",
    "credential|IMDS|metadata": "no credentials for the object store",
}
_options: dict[str, dict[str, str]] = {}


def set_storage_options(root: str, options: Mapping[str, str]) -> None:
    """Set the options for all tables below a URI, in this process.

    Args:
        root: URI of the object store, or a folder of it.
        options: keys of Lance and obstore, such as `aws_access_key_id`; what they do not name comes from the environment.

    """
    _options[root.rstrip("/")] = dict(options)


def storage_options(uri: str) -> dict[str, str]:
    """Return the options that were set for a URI; empty for none."""
    roots = [root for root in _options if uri == root or uri.startswith(f"{root}/")]
    return _options[max(roots, key=len)] if roots else {}


def is_remote(uri: str) -> bool:
    """Return whether a URI names an object store, and not a folder of this machine."""
    return "://" in uri and not uri.startswith("file://")


def check_store(uri: str) -> None:
    """Check that an object store takes writes, and that of two writers of one object it refuses the second; a folder always does.

    Raises:
        StoreError: it does not; without that, two runs at once would overwrite each other's tables.

    """
    if not is_remote(uri):
        return
    name = f"{PROBE}-{uuid.uuid4().hex}"
    try:
        folder = _open_folder(uri)
        obstore.put(folder, name, b"", mode="create")
        try:
            obstore.put(folder, name, b"", mode="create")
        except AlreadyExistsError:
            return
        finally:
            obstore.delete(folder, name)
    except (BaseError, OSError) as error:
        raise _as_store_error(uri, error) from None
    raise StoreError(f"{uri}: this object store has no conditional put, so two runs at once would damage a table; use another store")


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
            obstore.delete(_open_folder(uri), [f"data/{file.path}" for fragment in new for file in fragment.data_files()])
    except (ValueError, OSError, BaseError) as error:
        if not version and "Dataset already exists" in str(error):
            return False
        raise _as_store_error(uri, error) from None
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
        raise _as_store_error(uri, error) from None


def list_objects(uri: str) -> Iterator[dict[str, Any]]:
    """Yield path (relative to the URI), size, last_modified and e_tag of every object below a URI."""
    try:
        for chunk in obstore.list(_open_folder(uri.rstrip("/"))):
            yield from ({**item} for item in chunk)
    except (BaseError, OSError) as error:
        raise _as_store_error(uri, error) from None


def read_object(uri: str, length: int | None = None) -> bytes:
    """Return the content of an object, or its first bytes.

    Raises:
        FileNotFoundError: there is no such object.
        StoreError: the store cannot be read.

    """
    folder, name = uri.rsplit("/", 1)
    try:
        store = _open_folder(folder)
        return bytes(obstore.get(store, name).bytes() if length is None else obstore.get_range(store, name, start=0, length=length))
    except FileNotFoundError:
        raise FileNotFoundError(ENOENT, "there is no such object", uri) from None
    except (BaseError, OSError) as error:
        raise _as_store_error(uri, error) from None


def download(uri: str, file: Path) -> bool:
    """Copy an object to a file; returns False if there is no such object."""
    folder, name = uri.rsplit("/", 1)
    try:
        content = obstore.get(_open_folder(folder), name)
    except FileNotFoundError:
        return False
    except (BaseError, OSError) as error:
        raise _as_store_error(uri, error) from None
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        for part in content:
            stream.write(part)
    return True


def upload(file: Path, uri: str) -> None:
    """Copy a file to an object; it is complete at any moment."""
    folder, name = uri.rsplit("/", 1)
    try:
        obstore.put(_open_folder(folder), name, file)
    except (BaseError, OSError) as error:
        raise _as_store_error(uri, error) from None


def remove(uri: str) -> None:
    """Remove an object if there is one."""
    folder, name = uri.rsplit("/", 1)
    try:
        obstore.delete(_open_folder(folder), name)
    except FileNotFoundError:
        return
    except (BaseError, OSError) as error:
        raise _as_store_error(uri, error) from None


def _open(uri: str, version: int | None = None) -> lance.LanceDataset | None:
    """Return a table; None if there is none."""
    try:
        return lance.dataset(uri, version=version, storage_options=storage_options(uri))
    except (ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError) or re.search(r"was not found|Not found", str(error)):
            return None
        raise _as_store_error(uri, error) from None


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
        folder = _open_folder(uri)
        for name in ("_transactions", "_versions"):
            for file in (file for file in Path(temporary, name).iterdir() if file.suffix != ".json"):
                try:
                    obstore.put(folder, f"{name}/{file.name}", file.read_bytes(), mode="create")
                except AlreadyExistsError:
                    return False
    return True


def _open_folder(uri: str) -> Any:
    """Return an object store whose root is a URI or a folder of this machine."""
    if not is_remote(uri):
        folder = Path(uri.removeprefix("file://")).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return obstore.store.LocalStore(folder)
    return _open_remote(uri, frozenset(storage_options(uri).items()))


@lru_cache(maxsize=1024)
def _open_remote(uri: str, items: frozenset[tuple[str, str]]) -> Any:
    """Return an object store; it keeps its connections."""
    options: dict[str, Any] = dict(items)
    client_options: Any = {"allow_http": True} if options.pop("allow_http", None) else {}
    config: Any = options
    return from_url(uri, config=config, client_options=client_options)


def _as_store_error(uri: str, error: Exception) -> StoreError:
    """Return the error of a store as one message."""
    text = " ".join(str(error).split())
    reason = next((reason for pattern, reason in REASONS.items() if re.search(pattern, text, re.IGNORECASE)), text[:300])
    return StoreError(f"{uri}: {reason}")

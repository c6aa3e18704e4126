"""List the files of a folder, and read new and changed ones into catalogue rows."""

# pathlib is several times slower over 20,000 files.
# ruff: noqa: PTH110, PTH116, PTH118

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import IO

import pandas as pd
import pyarrow as pa

from deeprank.data.catalogue import COLUMNS, SCHEMA
from deeprank.data.images import sha256, to_stored_image
from deeprank.data.splits import SPLITS
from deeprank.errors import DataError
from deeprank.reporting import track

FILES_PER_BATCH = 256
WITHOUT_IMAGES = pa.ipc.IpcReadOptions(included_fields=[SCHEMA.names.index(name) for name in COLUMNS])


def list_files(folder: Path) -> dict[str, os.stat_result]:
    """Return every file below a folder with its stat, by relative path with forward slashes, in order of path.

    Raises:
        DataError: the folder does not exist, is empty, or it or a folder below it cannot be read.

    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {problem}; ingest.source must be a folder of <class>/<image>")
    files: dict[str, os.stat_result] = {}
    # A link can lead to a folder that is listed already, even to one of its own parents.
    visited: set[str] = set()

    def raise_unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}): grant read permission or move it away") from error

    for root, folders, names in os.walk(folder, onerror=raise_unreadable, followlinks=True):
        folders.sort()
        real_path = os.path.realpath(root)
        if real_path in visited:
            folders.clear()
            continue
        visited.add(real_path)
        parent = os.path.relpath(root, folder).replace(os.sep, "/")
        for name in names:
            file = os.path.join(root, name)
            # The catalogue stores UTF-8: a name that is not valid UTF-8 gets a replacement character, and is rejected as unreadable.
            path = (name if parent == "." else f"{parent}/{name}").encode(errors="surrogateescape").decode(errors="replace")
            # A broken link is listed too; its row is rejected as unreadable.
            files[path] = os.stat(file) if os.path.exists(file) else os.lstat(file)
    if not files:
        raise DataError(f"{folder} is empty: put images into {folder}/<class>/")
    return dict(sorted(files.items()))


def has_own_splits(paths: Iterable[str]) -> bool:
    """Return whether relative paths have train/ and test/ as top folders.

    Raises:
        DataError: they have train/ and val/ without test/, which are hardly meant as class names.

    """
    top_folders = {path.split("/", 1)[0] for path in paths if "/" in path}
    if {"train", "val"} <= top_folders and "test" not in top_folders:
        raise DataError(
            "the folder has train/ and val/ but no test/ to evaluate on: rename val/ to test/, or put all classes into one folder"
        )
    return {"train", "test"} <= top_folders


def new_or_changed_files(state: pd.DataFrame, files: dict[str, os.stat_result]) -> dict[str, os.stat_result]:
    """Return the files that must be read.

    Args:
        state: the present state of the catalogue.
        files: all files of the folder by path.

    Returns:
        the files that are new, whose size or modification time differs from the catalogue's, or that could not be read before.

    """
    readable = state[state["id"] != ""]
    ingested = dict(zip(readable["path"], zip(readable["size"], readable["mtime_ns"], strict=True), strict=True))
    return {path: stat for path, stat in files.items() if ingested.get(path) != (stat.st_size, stat.st_mtime_ns)}


def read_files(
    folder: Path, files: dict[str, os.stat_result], state: pd.DataFrame, own_splits: bool, spool: IO[bytes], progress: bool
) -> pd.DataFrame:
    """Decode files on all cores, write their rows to disk to keep memory constant, and return the rows without the JPEGs.

    Args:
        folder: the folder that the paths are relative to.
        files: the files to read, by path.
        state: the present state of the catalogue; a file that still cannot be read for the same reason gets no new row.
        own_splits: whether the top folder is the split.
        spool: receives the rows with their JPEGs as an Arrow file.
        progress: whether to show a progress bar.

    """
    unreadable = state.loc[state["id"] == "", ["path", "size", "mtime_ns", "reason"]]
    unchanged = set(unreadable.itertuples(index=False, name=None))
    paths = list(files)
    starts: Iterable[int] = range(0, len(paths), FILES_PER_BATCH)
    if progress and len(paths) > FILES_PER_BATCH:
        starts = track(starts, description=f"reading {len(paths):,} files")
    with ThreadPoolExecutor(os.cpu_count()) as pool, pa.ipc.new_file(spool, SCHEMA) as writer:
        for start in starts:
            rows = pool.map(lambda path: _read_row(folder, path, files[path], own_splits), paths[start : start + FILES_PER_BATCH])
            new_rows = [row for row in rows if tuple(row[name] for name in unreadable.columns) not in unchanged]
            writer.write_batch(pa.RecordBatch.from_pylist(new_rows, SCHEMA))
    return pa.ipc.open_file(spool, options=WITHOUT_IMAGES).read_all().to_pandas()


def _read_row(folder: Path, path: str, stat: os.stat_result, own_splits: bool) -> dict[str, object]:
    """Return the catalogue row of one file; a file that cannot be used gives a rejected row with the reason."""
    split, *folders = ["", *path.split("/")[:-1]]
    if own_splits:
        split, *folders = folders or [""]
    row = {
        "path": path, "id": "", "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "label": "/".join(folders), "width": 0,
        "height": 0, "phash": 0, "duplicate_group": "", "split": split, "status": "rejected", "reason": "", "image_row": -1,
    }  # fmt: skip
    try:
        if not (S_ISREG(stat.st_mode) or S_ISLNK(stat.st_mode)):
            raise DataError("not a file but a pipe, socket or device")
        data = (folder / path).read_bytes()
        row["id"] = sha256(data)
        if own_splits and split not in SPLITS:
            raise DataError("outside train/, val/ and test/, which this folder has")
        if not folders:
            raise DataError("not in a class folder")
        image = to_stored_image(data)
    except OSError as error:
        return row | {"reason": f"cannot be read: {error.strerror or error}"}
    except DataError as error:
        return row | {"reason": str(error)}
    return row | {
        "width": image.width, "height": image.height, "phash": image.phash,
        "status": "ok", "reason": image.conversion, "image": image.jpeg,
    }  # fmt: skip

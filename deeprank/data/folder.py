"""What lies in a folder: its files, and for each that is new or changed a row of the catalogue."""

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
from deeprank.data.images import canonical, sha256
from deeprank.data.splits import SPLITS
from deeprank.errors import DataError
from deeprank.reporting import track

CHUNK = 256
WITHOUT_IMAGES = pa.ipc.IpcReadOptions(included_fields=[SCHEMA.names.index(name) for name in COLUMNS])


def scan(folder: Path) -> dict[str, os.stat_result]:
    """Return every file below a folder with its stat, by relative path with forward slashes."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; ingest.source wants a folder of <class>/<image>")
    files: dict[str, os.stat_result] = {}
    # A link to a folder that was already walked would bring everything in it again, or for ever.
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}): give read permission or move it away") from error

    for root, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        folders.sort()
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        base = os.path.relpath(root, folder).replace(os.sep, "/")
        for name in names:
            file = os.path.join(root, name)
            # A broken link is something found too: its row will say that it cannot be read.
            # A name that is no UTF-8 cannot be stored: its row will say that it cannot be read.
            path = (name if base == "." else f"{base}/{name}").encode(errors="surrogateescape").decode(errors="replace")
            files[path] = os.stat(file) if os.path.exists(file) else os.lstat(file)
    if not files:
        raise DataError(f"{folder} is empty: put images into {folder}/<class>/")
    return dict(sorted(files.items()))


def has_own_splits(files: Iterable[str]) -> bool:
    """Say whether paths have train/ and test/ on top.

    Raises:
        DataError: they have train/ and val/, which cannot be meant as classes, and no test/.

    """
    tops = {path.split("/", 1)[0] for path in files if "/" in path}
    if {"train", "val"} <= tops and "test" not in tops:
        raise DataError("train/ and val/ lie on top, but no test/ to evaluate on: rename val/ to test/, or put all classes into one folder")
    return {"train", "test"} <= tops


def stale(known: pd.DataFrame, files: dict[str, os.stat_result]) -> dict[str, os.stat_result]:
    """Return the files that are new, whose size or time of change is not the known one, or that could not be read before."""
    read = known[known["id"] != ""]
    seen = dict(zip(read["path"], zip(read["size"], read["mtime_ns"], strict=True), strict=True))
    return {path: stat for path, stat in files.items() if seen.get(path) != (stat.st_size, stat.st_mtime_ns)}


def read_files(
    folder: Path, files: dict[str, os.stat_result], known: pd.DataFrame, own_split: bool, spool: IO[bytes], progress: bool
) -> pd.DataFrame:
    """Decode files on all cores and return their rows; the images go to disk, so that memory stays flat however many.

    Args:
        folder: that the files' paths are relative to.
        files: to read.
        known: present state of the catalogue; a file that still cannot be read, for the reason that is there, makes no row.
        own_split: the topmost folder is the split.
        spool: gets the rows, images included, as an Arrow file.
        progress: show a progress bar.

    """
    unread = known.loc[known["id"] == "", ["path", "size", "mtime_ns", "reason"]]
    old = set(unread.itertuples(index=False, name=None))
    paths = list(files)
    starts: Iterable[int] = range(0, len(paths), CHUNK)
    if progress and len(paths) > CHUNK:
        starts = track(starts, description=f"reading {len(paths):,} files")
    with ThreadPoolExecutor(os.cpu_count()) as pool, pa.ipc.new_file(spool, SCHEMA) as writer:
        for start in starts:
            rows = pool.map(lambda path: _row(folder, path, files[path], own_split), paths[start : start + CHUNK])
            news = [row for row in rows if tuple(row[name] for name in unread.columns) not in old]
            writer.write_batch(pa.RecordBatch.from_pylist(news, SCHEMA))
    return pa.ipc.open_file(spool, options=WITHOUT_IMAGES).read_all().to_pandas()


def _row(folder: Path, path: str, stat: os.stat_result, own_split: bool) -> dict[str, object]:
    """Read one file; whatever is wrong with it becomes the reason of a rejected row."""
    split, *folders = ["", *path.split("/")[:-1]]
    if own_split:
        split, *folders = folders or [""]
    row = {
        "path": path, "id": "", "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "label": "/".join(folders), "width": 0,
        "height": 0, "phash": 0, "group": "", "split": split, "status": "rejected", "reason": "", "image_row": -1,
    }  # fmt: skip
    try:
        if not (S_ISREG(stat.st_mode) or S_ISLNK(stat.st_mode)):
            raise DataError("not a file but a pipe, socket or device")
        data = (folder / path).read_bytes()
        row["id"] = sha256(data)
        if own_split and split not in SPLITS:
            raise DataError("outside train/, val/ and test/, which this folder has")
        if not folders:
            raise DataError("in no class folder")
        image = canonical(data)
    except OSError as error:
        return row | {"reason": f"cannot be read: {error.strerror or error}"}
    except DataError as error:
        return row | {"reason": str(error)}
    return row | {
        "width": image.width, "height": image.height, "phash": image.phash,
        "status": "ok", "reason": image.remark, "image": image.jpeg,
    }  # fmt: skip

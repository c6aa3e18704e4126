"""Read new and changed files of a folder into catalogue rows."""

import unicodedata
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from deeprank.cpu import num_cores
from deeprank.data.images import HEAD_BYTES, reject_reason, sha256, to_stored_image
from deeprank.data.listing import ListedFile
from deeprank.data.object_store import is_remote, read_object
from deeprank.data.split_folders import SplitFolders
from deeprank.data.spool import Spool
from deeprank.errors import DataError, StoreError
from deeprank.reporting import track

FILES_PER_BATCH = 256
MAX_IMAGE_BYTES = 256 * 2**20
TOO_LARGE = f"the file is larger than {MAX_IMAGE_BYTES // 2**20} MiB"
# Most of the time of a read from an object store is waiting.
MIN_READERS_OF_STORE = 16
CANNOT_BE_READ = "cannot be read: "
NOT_IN_A_CLASS = "not in a class folder"
# A file whose values differ from the catalogue's is read again.
STAT_COLUMNS = ["size", "mtime_ns", "ctime_ns"]


def split_and_label(path: str, split_folders: SplitFolders | None) -> tuple[str, str]:
    """Return the split and the label of a file; an empty split where the splits are not folders, an empty label outside of a class.

    Args:
        path: relative path with forward slashes.
        split_folders: the folders that are splits; None for a folder of classes.

    """
    split, label = split_folders.split_and_label(path) if split_folders else ("", path.rpartition("/")[0])
    # Programs write the same name in different Unicode forms.
    return split, unicodedata.normalize("NFC", label)


def new_or_changed_files(state: pd.DataFrame, files: Mapping[str, ListedFile]) -> dict[str, ListedFile]:
    """Return the files that must be read.

    Args:
        state: the present state of the catalogue.
        files: all files of the folder by path.

    Returns:
        the files that are new, whose size or times differ from the catalogue's, or that could not be read before.

    """
    readable = state[~_is_unreadable(state)]
    ingested = dict(zip(readable["path"], readable[STAT_COLUMNS].itertuples(index=False, name=None), strict=True))
    return {path: file for path, file in files.items() if ingested.get(path) != (file.size, file.mtime_ns, file.ctime_ns)}


def require_images(files: Mapping[str, ListedFile], split_folders: SplitFolders | None, folder: Path | str, min_classes: int) -> None:
    """Check the heads of files until enough classes with an image are found, before any image is decoded.

    Args:
        files: all files of the folder by path.
        split_folders: see `split_and_label`.
        folder: of the images, for the error message.
        min_classes: number of classes that must have an image.

    Raises:
        DataError: there are fewer classes.

    """
    labels: set[str] = set()
    reasons: dict[str, int] = {}
    for path, file in files.items():
        if len(labels) >= min_classes:
            return
        split, label = split_and_label(path, split_folders)
        if label in labels:
            continue
        reason = NOT_IN_A_CLASS if not label or (split_folders and not split) else _head_problem(file)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            labels.add(label)
    if len(labels) < min_classes:
        raise DataError(too_few_classes(folder, labels) + "".join(f"; {count} files: {reason}" for reason, count in reasons.items()))


def too_few_classes(folder: Path | str, labels: Iterable[str]) -> str:
    """Return the error message for a folder with no class or one class."""
    for label in labels:
        return f"{folder}: only one class, {label}; similarity needs at least two class folders"
    return f"{folder}: no file is a readable image in a class folder; expected {folder}/<class>/<image>"


def read_files(
    files: Mapping[str, ListedFile], state: pd.DataFrame, split_folders: SplitFolders | None, spool: Spool, progress: bool
) -> None:
    """Decode files on all cores, and write their rows to disk to keep memory constant.

    Args:
        files: the files to read, by path.
        state: the present state of the catalogue; a file that still cannot be read for the same reason gets no new row.
        split_folders: see `split_and_label`.
        spool: receives the rows with their JPEGs.
        progress: whether to show a progress bar.

    """
    unreadable = state.loc[_is_unreadable(state), ["path", *STAT_COLUMNS, "reason"]]
    unchanged = set(unreadable.itertuples(index=False, name=None))
    paths = list(files)
    starts: Iterable[int] = range(0, len(paths), FILES_PER_BATCH)
    if progress and len(paths) > FILES_PER_BATCH:
        starts = track(starts, description=f"reading {len(paths):,} files")
    from_store = any(is_remote(file.file) for file in files.values())
    with ThreadPoolExecutor(max(num_cores(), MIN_READERS_OF_STORE if from_store else 1)) as pool:
        for start in starts:
            rows = pool.map(lambda path: _read_row(path, files[path], split_folders), paths[start : start + FILES_PER_BATCH])
            spool.write([row for row in rows if tuple(row[name] for name in unreadable.columns) not in unchanged])


def _is_unreadable(state: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows are files that could not be read, so that they are tried again."""
    return (state["id"] == "") & state["reason"].str.startswith(CANNOT_BE_READ)


def _read_row(path: str, file: ListedFile, split_folders: SplitFolders | None) -> dict[str, object]:
    """Return the catalogue row of one file; a file that cannot be used gives a rejected row with the reason."""
    split, label = split_and_label(path, split_folders)
    row: dict[str, object] = {
        "path": path, "id": "", "size": file.size, "mtime_ns": file.mtime_ns, "ctime_ns": file.ctime_ns, "label": label, "width": 0,
        "height": 0, "phash": 0, "duplicate_group": "", "split": split, "status": "rejected", "reason": "", "has_image": False,
    }  # fmt: skip
    try:
        if split_folders and not split:
            raise DataError(split_folders.outside())
        if not label:
            raise DataError(NOT_IN_A_CLASS)
        data = _read_image(file)
        row["id"] = sha256(data)
        image = to_stored_image(data)
    except OSError as error:
        return row | {"reason": f"{CANNOT_BE_READ}{error.strerror or error}"}
    except StoreError:
        raise
    except DataError as error:
        return row | {"reason": str(error)}
    except Exception as error:  # One odd file must not end a run, whatever a decoder raises.
        return row | {"reason": f"damaged or truncated image: {type(error).__name__}: {error}"}
    return row | {
        "width": image.width, "height": image.height, "phash": image.phash,
        "status": "ok", "reason": image.conversion, "image": image.jpeg,
    }  # fmt: skip


def _read_image(file: ListedFile) -> bytes:
    """Return the bytes of a file whose head is that of an image; nothing but the head is read of another file.

    Raises:
        DataError: it is no image, or too large.
        OSError: it cannot be read.

    """
    if not file.is_regular:
        raise DataError("not a file but a pipe, socket or device")
    if is_remote(file.file):
        if file.size > MAX_IMAGE_BYTES:
            raise DataError(TOO_LARGE)
        content = read_object(file.file)
        if reason := reject_reason(content[:HEAD_BYTES]):
            raise DataError(reason)
        return content
    with Path(file.file).open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        reason = reject_reason(head)
        if reason:
            raise DataError(reason)
        if file.size > MAX_IMAGE_BYTES:
            raise DataError(TOO_LARGE)
        return head + stream.read()


def _head_problem(file: ListedFile) -> str:
    """Return why a file is no image, from its first bytes; empty for a file that may be one."""
    if not file.is_regular:
        return "not a file but a pipe, socket or device"
    try:
        if is_remote(file.file):
            # No store gives a part of an empty object.
            return reject_reason(read_object(file.file, min(HEAD_BYTES, file.size)) if file.size else b"")
        with Path(file.file).open("rb") as stream:
            return reject_reason(stream.read(HEAD_BYTES))
    except OSError as error:
        return f"{CANNOT_BE_READ}{error.strerror or error}"

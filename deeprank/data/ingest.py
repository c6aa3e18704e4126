"""Folder of photographs → catalogue: read what is new or changed, mark what vanished, leave the rest alone."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import IO

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from deeprank.data.catalogue import COLUMNS, SCHEMA, Catalogue, latest, read_events
from deeprank.data.photographs import canonical, sha256
from deeprank.data.splits import SPLITS, place
from deeprank.errors import ConfigError, DataError
from deeprank.reporting import track
from deeprank.settings import Settings

CHUNK = 256


class RenderedSettings(Settings):
    """How many products to draw, and how many photographs of each, where the source is `rendered`."""

    classes: int = Field(36, ge=2)
    images: int = Field(40, ge=2)
    seed: int = 0


class SplitShares(Settings):
    """Shares of photographs for a folder without train/, val/ and test/ of its own."""

    train: float = Field(0.7, gt=0, le=1)
    val: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _sum(self) -> "SplitShares":
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError("train + val + test must be 1")
        return self


class IngestSettings(Settings):
    """What to ingest.

    Attributes:
        source: a folder of `<class>/<image>` to any depth, with or without train/, val/, test/ on top; or `auto`: the
            folder in DEEPRANK_DATA, else the grocery photographs (beside the project, or downloaded), else rendered
            ones; or `rendered`.
        rendered: how many rendered photographs.
        near_duplicate_bits: perceptual hashes (64 bits) that differ in at most so many bits are near-duplicates.
        shares: of the splits.
        version: use this old version of the catalogue instead of looking at the folder.

    """

    source: str = "auto"
    rendered: RenderedSettings = RenderedSettings()
    near_duplicate_bits: int = Field(4, ge=0, le=32)
    shares: SplitShares = SplitShares()
    version: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class IngestReport:
    """What an ingest found: `found` files, of which `read` were new or changed; `counts` by status add up to it."""

    found: int
    read: int
    removed: int
    counts: dict[str, int]
    crossing: int
    moved: dict[str, int]
    remarks: list[str]

    def metrics(self) -> dict[str, float]:
        """Return the counts under the names that MLflow shows: files.ok + files.duplicate + files.rejected = files.found."""
        counts = {status: self.counts.get(status, 0) for status in ("ok", "duplicate", "rejected")}
        named = {"found": self.found, "read": self.read, "removed": self.removed, **counts}
        return {f"files.{name}": float(count) for name, count in named.items()} | {"groups_across_splits": float(self.crossing)}


def ingest(
    folder: Path, settings: IngestSettings, catalogues: str, progress: bool = True, keep_split: bool = True
) -> tuple[Catalogue, IngestReport]:
    """Bring the catalogue of a folder up to date and return its newest version.

    Args:
        folder: what to ingest.
        settings: see IngestSettings.
        catalogues: folder or object-store URI under which catalogues live.
        progress: show a progress bar.
        keep_split: take train/, val/ and test/ on top of the folder as its splits.

    Raises:
        DataError: the folder is missing, unreadable or empty.
        ConfigError: `settings.version` does not exist.

    """
    folder = folder.expanduser().resolve()
    files = _scan(folder)
    own_split = keep_split and {"train", "test"} <= {path.split("/", 1)[0] for path in files if "/" in path}
    uri = f"{catalogues.rstrip('/')}/{_table_name(folder, settings, own_split)}"
    if settings.version is not None:
        catalogue = _old_version(uri, settings.version)
        return catalogue, _report(catalogue, len(catalogue.state), 0, 0, {})
    events = read_events(uri) if _exists(uri) else pd.DataFrame(columns=COLUMNS)
    known = latest(events)
    known = known[known["status"] != "removed"]
    stale = _stale(known, files)
    gone = known[~known["path"].isin(list(files))]
    moved: dict[str, int] = {}
    if stale or len(gone):
        with tempfile.TemporaryFile() as spool:
            _read(folder, {path: files[path] for path in stale}, own_split, spool, progress)
            read = pa.ipc.open_file(spool)
            removals = gone.assign(status="removed", reason="no longer in the folder")
            fresh = pd.concat([read.read_all().select(COLUMNS).to_pandas(), removals], ignore_index=True)
            rows = place(events, fresh, settings.near_duplicate_bits, None if own_split else settings.shares.model_dump())
            moved = _moved(known, rows)
            _append(uri, rows, read, len(events))
    catalogue = Catalogue(uri, lance.dataset(uri).version)
    return catalogue, _report(catalogue, len(files), len(stale), len(gone), moved)


def whole_folder(folder: Path, catalogues: str, say: Callable[[str], None]) -> Catalogue:
    """Return a catalogue of a folder taken as one: all of it in the train split, train/ and test/ being class names like others.

    Args:
        folder: of <class>/<image>.
        catalogues: where the catalogue goes.
        say: hears about each file that is left out.

    """
    settings = IngestSettings(source=str(folder), shares=SplitShares(train=1, val=0, test=0))
    catalogue, report = ingest(folder, settings, catalogues, keep_split=False)
    for remark in report.remarks:
        say(remark)
    if not len(catalogue.frame):
        raise DataError(f"{folder}: not one file is a readable photograph in a class folder; expected {folder}/<class>/<image>")
    return catalogue


def _table_name(folder: Path, settings: IngestSettings, own_split: bool) -> str:
    """One table a folder and way of splitting: a change of either starts a history of its own."""
    key = [str(folder), settings.near_duplicate_bits, None if own_split else settings.shares.model_dump()]
    return f"{folder.name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:10]}.lance"


def _exists(uri: str) -> bool:
    try:
        lance.dataset(uri)
    except (ValueError, FileNotFoundError):
        return False
    return True


def _old_version(uri: str, version: int) -> Catalogue:
    have = [entry["version"] for entry in lance.dataset(uri).versions()] if _exists(uri) else []
    if version not in have:
        raise ConfigError(f"ingest.version: {version} is not a version of {uri}; there are {have or 'none'}")
    return Catalogue(uri, version)


def _scan(folder: Path) -> dict[str, os.stat_result]:
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
        raise DataError(f"{folder} is empty: put photographs into {folder}/<class>/")
    return dict(sorted(files.items()))


def _stale(known: pd.DataFrame, files: dict[str, os.stat_result]) -> list[str]:
    """Return the paths that are new, or whose size or time of change is not the known one."""
    seen = dict(zip(known["path"], zip(known["size"], known["mtime_ns"], strict=True), strict=True))
    return [path for path, stat in files.items() if seen.get(path) != (stat.st_size, stat.st_mtime_ns)]


def _read(folder: Path, stale: dict[str, os.stat_result], own_split: bool, spool: IO[bytes], progress: bool) -> None:
    """Decode files on all cores and spool their rows to disk, so that memory stays flat however many there are."""
    paths = list(stale)
    starts: Iterable[int] = range(0, len(paths), CHUNK)
    if progress and len(paths) > CHUNK:
        starts = track(starts, description=f"reading {len(paths):,} files")
    with ThreadPoolExecutor(os.cpu_count()) as pool, pa.ipc.new_file(spool, SCHEMA) as writer:
        for start in starts:
            rows = pool.map(lambda path: _row(folder, path, stale[path], own_split), paths[start : start + CHUNK])
            writer.write_batch(pa.RecordBatch.from_pylist(list(rows), SCHEMA))


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
        photograph = canonical(data)
    except OSError as error:
        return row | {"reason": f"cannot be read: {error.strerror or error}"}
    except DataError as error:
        return row | {"reason": str(error)}
    return row | {
        "width": photograph.width, "height": photograph.height, "phash": photograph.phash,
        "status": "ok", "reason": photograph.remark, "image": photograph.jpeg,
    }  # fmt: skip


def _append(uri: str, rows: pd.DataFrame, read: pa.ipc.RecordBatchFileReader, offset: int) -> None:
    """Append placed rows in one commit; each photograph's bytes are stored with its first row only."""

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


def _batch(rows: pd.DataFrame, images: pa.Array) -> pa.RecordBatch:
    small = pa.Table.from_pandas(rows[COLUMNS], pa.schema([SCHEMA.field(name) for name in COLUMNS]), preserve_index=False)
    # Rows of several origins come in several chunks.
    return pa.RecordBatch.from_arrays([*(column.combine_chunks() for column in small.columns), images], schema=SCHEMA)


def _moved(known: pd.DataFrame, rows: pd.DataFrame) -> dict[str, int]:
    """Count, by the split they leave, the unchanged photographs that go to another split with the group they joined."""
    both = known.merge(rows, on=["path", "id"], suffixes=("", "_now"))
    left = both[(both["status_now"] == "ok") & (both["split"] != both["split_now"])]
    return {str(split): int(count) for split, count in left["split"].value_counts().items()}


def _report(catalogue: Catalogue, found: int, read: int, removed: int, moved: dict[str, int]) -> IngestReport:
    state, frame = catalogue.state, catalogue.frame
    counts = {str(status): int(count) for status, count in state["status"].value_counts().items()}
    remarks = [f"{row.path}: {row.status}: {row.reason}" for row in state[state["reason"].ne("")].itertuples()]
    sizes = frame["label"].value_counts()
    remarks += [f"class {label} has one photograph: it is never a query or a positive" for label in sizes.index[sizes == 1]]
    crossing = int((frame.groupby("group")["split"].nunique() > 1).sum())
    if crossing:
        remarks.append(f"{crossing} groups of near-duplicates lie in more than one of the folder's own splits")
    remarks += [f"{count} photographs left {split} because their group joined an older one" for split, count in moved.items()]
    return IngestReport(found, read, removed, counts, crossing, moved, remarks)


def require_classes(frame: pd.DataFrame, folder: Path) -> None:
    """Raise DataError unless a catalogue's frame has two classes, one of them of two photographs; `folder` is named."""
    sizes = frame["label"].value_counts()
    if not len(sizes):
        raise DataError(f"{folder}: not one file is a readable photograph in a class folder; expected {folder}/<class>/<image>")
    if len(sizes) == 1:
        raise DataError(f"{folder}: only one class, {sizes.index[0]}; similarity needs at least two class folders")
    if (sizes >= 2).sum() == 0:
        raise DataError(f"{folder}: no class has two photographs; put at least two similar ones into a class folder")

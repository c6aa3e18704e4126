"""Bring the catalogue of a folder of images up to date: read new and changed files, and mark removed ones."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import Field, model_validator

from deeprank.data.catalogue import COLUMNS, Catalogue, append_events, latest_events, open_table, read_events, table_exists, table_versions
from deeprank.data.folder import has_own_splits, list_files, new_or_changed_files, read_files
from deeprank.data.splits import assign_groups_and_splits
from deeprank.errors import ConfigError, DataError
from deeprank.settings import Settings


class SyntheticSettings(Settings):
    """Number of synthetic classes and of images per class, for the source `synthetic`.

    Attributes:
        classes: number of classes (products), at least 2.
        images: number of images per class, at least 2.
        seed: random seed of the images.

    """

    classes: int = Field(36, ge=2)
    images: int = Field(40, ge=2)
    seed: int = 0


class SplitShares(Settings):
    """Share of images in each split, for a folder without train/, val/ and test/ of its own.

    Attributes:
        train: share of the near-duplicate groups in the train split; the sum of the three shares is 1.
        val: share of the near-duplicate groups in the val split.
        test: share of the near-duplicate groups in the test split.

    """

    train: float = Field(0.7, gt=0, le=1)
    val: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitShares":
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError("train + val + test must be 1")
        return self


class IngestSettings(Settings):
    """What to ingest, and how to split it.

    Attributes:
        source: a folder of `<class>/<image>` to any depth, with or without train/, val/ and test/ as top folders; or `synthetic`;
            or `auto`, the first of these that is available: the folder in the variable DEEPRANK_DATA, the folder data/images in
            the state folder, the public grocery images (downloaded into data/grocery in the state folder), synthetic images.
        synthetic: number of synthetic images.
        near_duplicate_bits: images whose 64-bit perceptual hashes differ in at most this many bits are near-duplicates.
        shares: share of images in each split.
        version: use this old version of the catalogue and do not read the folder.

    """

    source: str = "auto"
    synthetic: SyntheticSettings = SyntheticSettings()
    near_duplicate_bits: int = Field(4, ge=0, le=32)
    shares: SplitShares = SplitShares()
    version: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class IngestReport:
    """Counts and messages of one ingest.

    Attributes:
        num_files: files in the folder; the sum of `status_counts`.
        num_read: files that were new or changed.
        num_removed: files that are no longer in the folder.
        status_counts: number of files by status.
        num_crossing_groups: duplicate groups in more than one of the folder's own splits.
        split_changes: number of images that left each split because their duplicate group was joined to an older one.
        messages: one line about each file, class or group that needs attention.

    """

    num_files: int
    num_read: int
    num_removed: int
    status_counts: dict[str, int]
    num_crossing_groups: int
    split_changes: dict[str, int]
    messages: list[str]

    def metrics(self) -> dict[str, float]:
        """Return the counts by metric name; files.ok + files.duplicate + files.rejected = files.total."""
        by_status = {status: self.status_counts.get(status, 0) for status in ("ok", "duplicate", "rejected")}
        counts = {"total": self.num_files, "read": self.num_read, "removed": self.num_removed, **by_status}
        return {f"files.{name}": float(count) for name, count in counts.items()} | {"groups_across_splits": float(self.num_crossing_groups)}


def ingest(
    folder: Path, settings: IngestSettings, catalogues: str, progress: bool = True, keep_splits: bool = True
) -> tuple[Catalogue, IngestReport]:
    """Bring the catalogue of a folder up to date and return its newest version.

    Args:
        folder: the folder of images.
        settings: see IngestSettings; `source` is not used.
        catalogues: folder or object-store URI for the catalogue tables.
        progress: whether to show a progress bar.
        keep_splits: whether train/, val/ and test/ as top folders are splits; otherwise they are class names.

    Raises:
        DataError: the folder does not exist, is empty or cannot be read, or an older version of this project wrote the table.
        ConfigError: `settings.version` does not exist.

    """
    folder = folder.expanduser().resolve()
    if settings.version is not None:
        catalogue = _old_version(catalogues, folder, settings, keep_splits)
        return catalogue, _report(catalogue, len(catalogue.state), 0, 0, {})
    files = list_files(folder)
    own_splits = keep_splits and has_own_splits(files)
    uri = _table_uri(catalogues, folder, settings, own_splits)
    events = read_events(uri) if table_exists(uri) else pd.DataFrame(columns=COLUMNS)
    state = latest_events(events)
    state = state[state["status"] != "removed"]
    removed = state[~state["path"].isin(list(files))]
    split_changes: dict[str, int] = {}
    with tempfile.TemporaryFile() as spool:
        read = read_files(folder, new_or_changed_files(state, files), state, own_splits, spool, progress)
        if len(read) or len(removed):
            new_rows = pd.concat([read, removed.assign(status="removed", reason="no longer in the folder")], ignore_index=True)
            shares = None if own_splits else settings.shares.model_dump()
            rows = assign_groups_and_splits(events, new_rows, settings.near_duplicate_bits, shares)
            split_changes = _count_split_changes(state, rows)
            append_events(uri, rows, spool, len(events))
    catalogue = Catalogue(uri, open_table(uri).version)
    return catalogue, _report(catalogue, len(files), len(read), len(removed), split_changes)


def ingest_folder(folder: Path, catalogues: str, log: Callable[[str], None]) -> Catalogue:
    """Ingest a whole folder into the train split; train/ and test/ are class names like any other.

    Args:
        folder: a folder of `<class>/<image>`.
        catalogues: folder or object-store URI for the catalogue table.
        log: called with each message of the ingest.

    Raises:
        DataError: the folder has no usable image.

    """
    settings = IngestSettings(source=str(folder), shares=SplitShares(train=1, val=0, test=0))
    catalogue, report = ingest(folder, settings, catalogues, keep_splits=False)
    for message in report.messages:
        log(message)
    if not len(catalogue.frame):
        raise DataError(_no_usable_image(folder))
    return catalogue


def require_classes(frame: pd.DataFrame, folder: Path) -> None:
    """Check that a catalogue has at least two classes, and at least one class with two images.

    Args:
        frame: of the catalogue.
        folder: of the images, for the error message.

    Raises:
        DataError: it has not.

    """
    sizes = frame["label"].value_counts()
    if not len(sizes):
        raise DataError(_no_usable_image(folder))
    if len(sizes) == 1:
        raise DataError(f"{folder}: only one class, {sizes.index[0]}; similarity needs at least two class folders")
    if (sizes >= 2).sum() == 0:
        raise DataError(f"{folder}: no class has two images; put at least two similar images into a class folder")


def _no_usable_image(folder: Path) -> str:
    return f"{folder}: no file is a readable image in a class folder; expected {folder}/<class>/<image>"


def _table_uri(catalogues: str, folder: Path, settings: IngestSettings, own_splits: bool) -> str:
    """Return the URI of a folder's table; another way to split the same folder gives another table."""
    key = [str(folder), settings.near_duplicate_bits, None if own_splits else settings.shares.model_dump()]
    return f"{catalogues.rstrip('/')}/{folder.name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:10]}.lance"


def _old_version(catalogues: str, folder: Path, settings: IngestSettings, keep_splits: bool) -> Catalogue:
    """Return the old version that the settings name, without reading the folder."""
    # The folder may be removed by now, and with it the answer whether it had its own splits. The table written last is used.
    candidates = [_table_uri(catalogues, folder, settings, own_splits) for own_splits in ((False, True) if keep_splits else (False,))]
    versions = {uri: table_versions(uri) for uri in candidates}
    uri = max(versions, key=lambda uri: sorted(versions[uri].values())[-1:])
    if settings.version not in versions[uri]:
        raise ConfigError(f"ingest.version: {settings.version} is not a version of {uri}; its versions: {list(versions[uri]) or 'none'}")
    return Catalogue(uri, settings.version)


def _count_split_changes(state: pd.DataFrame, rows: pd.DataFrame) -> dict[str, int]:
    """Return the number of unchanged images that leave each split, because their duplicate group was joined to an older one."""
    merged = state.merge(rows, on=["path", "id"], suffixes=("", "_new"))
    changed = merged[(merged["status_new"] == "ok") & (merged["split"] != merged["split_new"])]
    return {str(split): int(count) for split, count in changed["split"].value_counts().items()}


def _report(catalogue: Catalogue, num_files: int, num_read: int, num_removed: int, split_changes: dict[str, int]) -> IngestReport:
    """Return the report of an ingest that ended in a catalogue version."""
    state, frame = catalogue.state, catalogue.frame
    status_counts = {str(status): int(count) for status, count in state["status"].value_counts().items()}
    messages = [f"{row.path}: {row.status}: {row.reason}" for row in state[state["reason"].ne("")].itertuples()]
    sizes = frame["label"].value_counts()
    messages += [f"class {label} has one image: it is never a query or a positive" for label in sizes.index[sizes == 1]]
    num_crossing_groups = int((frame.groupby("duplicate_group")["split"].nunique() > 1).sum())
    if num_crossing_groups:
        messages.append(f"{num_crossing_groups} near-duplicate groups are in more than one of the folder's own splits")
    messages += [
        f"{count} images left {split} because their near-duplicate group was joined to an older one"
        for split, count in split_changes.items()
    ]
    return IngestReport(num_files, num_read, num_removed, status_counts, num_crossing_groups, split_changes, messages)

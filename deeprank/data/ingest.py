"""Bring the catalogue of a folder of images up to date: read new and changed files, and mark removed ones."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, model_validator

from deeprank.data.catalogue import Catalogue, latest_events, newest_events
from deeprank.data.folder import new_or_changed_files, read_files, require_images, too_few_classes
from deeprank.data.ingest_report import IngestReport, report_ingest
from deeprank.data.listing import list_files
from deeprank.data.object_listing import list_object_files
from deeprank.data.object_store import check_store, is_remote
from deeprank.data.split_folders import SplitFolders, find_split_folders, require_distinct_classes, shared_class_names
from deeprank.data.spool import Spool
from deeprank.data.store import table_versions
from deeprank.data.update import CatalogueUpdate
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
        source: a folder of `<class>/<image>` to any depth, or the URI of one in an object store (s3://, gs://, az://), with or
            without train/, val/ and test/ as top folders or in its only folder (also Training, valid, test_set and other common
            names; without a test folder, val is the test split); or `synthetic`; or `auto`, the first of these that is available: the
            folder in the variable DEEPRANK_DATA, the folder data/images in the state folder, the public grocery images (downloaded
            into data/grocery in the state folder), synthetic images.
        synthetic: number of synthetic images.
        near_duplicate_bits: images whose 64-bit perceptual hashes differ in at most this many bits are near-duplicates.
        shares: share of images in each split.
        exclude: glob patterns of files and folders to skip, compared with the path in the folder and with each folder name. Names that
            start with a dot and folders of operating systems and NAS devices are always skipped.
        shared_class_names: for top folders that are no splits and hold mostly the same class folders, such as 2023/ and 2024/, or
            train/ and test/ folders of their own: `stop` ends the run with a question; `keep` makes `2023/<class>` and `2024/<class>`
            two classes.
        version: use this old version of the catalogue and do not read the folder.
        name: of the catalogue; folders that are ingested under one name, at whatever path, share it. Empty: the folder's absolute path.

    """

    source: str = "auto"
    synthetic: SyntheticSettings = SyntheticSettings()
    near_duplicate_bits: int = Field(4, ge=0, le=32)
    shares: SplitShares = SplitShares()
    exclude: tuple[str, ...] = ()
    shared_class_names: Literal["stop", "keep"] = "stop"
    version: int | None = Field(None, ge=1)
    name: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")


def ingest(
    folder: Path | str, settings: IngestSettings, catalogues: str, progress: bool = True, keep_splits: bool = True, min_classes: int = 0
) -> tuple[Catalogue, IngestReport]:
    """Bring the catalogue of a folder up to date and return its newest version.

    Args:
        folder: the folder of images, or the URI of one in an object store.
        settings: see IngestSettings; `source` is not used.
        catalogues: folder or object-store URI for the catalogue tables.
        progress: whether to show a progress bar.
        keep_splits: whether train/, val/ and test/ as top folders are splits; otherwise they are class names.
        min_classes: classes that must have a file which begins like an image; checked before any image is decoded.

    Raises:
        DataError: the folder does not exist, is empty or cannot be read, has too few classes, its top folders hold the same classes,
            or an older version of this project wrote the table.
        ConfigError: `settings.version` does not exist.

    """
    if not is_remote(str(folder)):
        folder = Path(os.path.realpath(os.path.expanduser(folder)))  # noqa: PTH111 (pathlib raises other errors for unknown users)
    if settings.version is not None:
        return (catalogue := _old_version(catalogues, folder, settings, keep_splits)), report_ingest(catalogue)
    listing = list_files(folder, settings.exclude) if isinstance(folder, Path) else list_object_files(folder, settings.exclude)
    files = listing.files
    split_folders = find_split_folders(files) if keep_splits else None
    notes = split_folders.messages() if split_folders else []
    if keep_splits and split_folders is None and settings.shared_class_names == "stop":
        require_distinct_classes(files, folder)
    elif split_folders is None and (shared := shared_class_names(files)):
        notes.append(f"{shared}; a class is one folder with its parent folders, so these are different classes")
    require_images(files, split_folders, folder, min_classes)
    uri = _table_uri(catalogues, folder, settings, split_folders)
    check_store(uri)
    version, events = newest_events(uri)
    state = latest_events(events)
    state = state[state["status"] != "removed"]
    removed = state[~state["path"].isin(list(files))]
    shares = None if split_folders else settings.shares.model_dump()
    with Spool() as spool:
        read_files(new_or_changed_files(state, files), state, split_folders, spool, progress)
        update = CatalogueUpdate(uri, spool, removed, settings.near_duplicate_bits, shares, is_remote(str(folder)), progress)
        version, rows = update.commit(version, events)
    catalogue = Catalogue(uri, version)
    changes = _count_split_changes(state, rows)
    return catalogue, report_ingest(catalogue, len(spool.rows), len(removed), changes, listing.skipped, notes)


def ingest_folder(
    folder: Path | str, catalogues: str, log: Callable[[str], object], keep_splits: bool = False, min_classes: int = 1
) -> Catalogue:
    """Ingest a whole folder into the train split.

    Args:
        folder: a folder of `<class>/<image>`.
        catalogues: folder or object-store URI for the catalogue table.
        log: called with each message of the ingest.
        keep_splits, min_classes: as of `ingest`; by default train/ and test/ are class names like any other.

    Raises:
        DataError: the folder has no usable image.

    """
    settings = IngestSettings(source=str(folder), shares=SplitShares(train=1, val=0, test=0), shared_class_names="keep")
    catalogue, report = ingest(folder, settings, catalogues, keep_splits=keep_splits, min_classes=min_classes)
    for message in report.messages:
        log(message)
    if not len(catalogue.frame):
        raise DataError(too_few_classes(folder, []))
    return catalogue


def require_classes(frame: pd.DataFrame, folder: Path | str) -> None:
    """Check that a catalogue has at least two classes, and at least one class with two images.

    Args:
        frame: of the catalogue.
        folder: of the images, for the error message.

    Raises:
        DataError: it has not.

    """
    sizes = frame["label"].value_counts()
    if len(sizes) < 2:
        raise DataError(too_few_classes(folder, sizes.index))
    if (sizes >= 2).sum() == 0:
        raise DataError(f"{folder}: no class has two images; put at least two similar images into a class folder")


def _table_uri(catalogues: str, folder: Path | str, settings: IngestSettings, split_folders: SplitFolders | None) -> str:
    """Return the URI of a folder's table; another way to split the same folder gives another table."""
    key: list[object] = [
        settings.name or str(folder),
        settings.near_duplicate_bits,
        None if split_folders else settings.shares.model_dump(),
    ]
    if settings.exclude:
        key.append({"exclude": sorted(settings.exclude)})
    # The rows of val are of another split as soon as there is a test folder.
    if split_folders and split_folders.val_is_test:
        key.append("val is test")
    # The rows of a folder that holds the splits are of no split as soon as other folders are beside it.
    if split_folders and split_folders.parent:
        key.append("splits in a folder")
    # In a URL other characters would have a meaning, or another code.
    name = settings.name or re.sub(r"[^A-Za-z0-9._-]", "_", str(folder).rstrip("/").rpartition("/")[2])
    return f"{catalogues.rstrip('/')}/{name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:10]}.lance"


def _old_version(catalogues: str, folder: Path | str, settings: IngestSettings, keep_splits: bool) -> Catalogue:
    """Return the old version that the settings name, without reading the folder."""
    # The folder may be removed by now, and with it the answer whether it had its own splits. The table written last is used.
    own_splits = [SplitFolders({}, val_is_test, parent) for val_is_test in (False, True) for parent in ("", "any/")]
    layouts = [None, *own_splits] if keep_splits else [None]
    candidates = [_table_uri(catalogues, folder, settings, split_folders) for split_folders in layouts]
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

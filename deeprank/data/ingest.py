"""Folder of images → catalogue: read what is new or changed, mark what vanished, leave the rest alone."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lance
import pandas as pd
from pydantic import Field, model_validator

from deeprank.data.catalogue import COLUMNS, Catalogue, append, exists, latest, read_events, versions
from deeprank.data.folder import has_own_splits, read_files, scan, stale
from deeprank.data.splits import place
from deeprank.errors import ConfigError, DataError
from deeprank.settings import Settings


class SyntheticSettings(Settings):
    """How many products to draw, and how many images of each, where the source is `rendered`."""

    classes: int = Field(36, ge=2)
    images: int = Field(40, ge=2)
    seed: int = 0


class SplitShares(Settings):
    """Shares of images for a folder without train/, val/ and test/ of its own."""

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
            folder in DEEPRANK_DATA, else the grocery images (beside the project, or downloaded), else synthetic
            ones; or `synthetic`.
        synthetic: how many synthetic images.
        near_duplicate_bits: perceptual hashes (64 bits) that differ in at most so many bits are near-duplicates.
        shares: of the splits.
        version: use this old version of the catalogue instead of looking at the folder.

    """

    source: str = "auto"
    synthetic: SyntheticSettings = SyntheticSettings()
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
    if settings.version is not None:
        catalogue = _old_version(catalogues, folder, settings, keep_split)
        return catalogue, _report(catalogue, len(catalogue.state), 0, 0, {})
    files = scan(folder)
    own_split = keep_split and has_own_splits(files)
    uri = _table(catalogues, folder, settings, own_split)
    events = read_events(uri) if exists(uri) else pd.DataFrame(columns=COLUMNS)
    known = latest(events)
    known = known[known["status"] != "removed"]
    gone = known[~known["path"].isin(list(files))]
    moved: dict[str, int] = {}
    with tempfile.TemporaryFile() as spool:
        read = read_files(folder, stale(known, files), known, own_split, spool, progress)
        if len(read) or len(gone):
            fresh = pd.concat([read, gone.assign(status="removed", reason="no longer in the folder")], ignore_index=True)
            rows = place(events, fresh, settings.near_duplicate_bits, None if own_split else settings.shares.model_dump())
            moved = _moved(known, rows)
            append(uri, rows, spool, len(events))
    catalogue = Catalogue(uri, lance.dataset(uri).version)
    return catalogue, _report(catalogue, len(files), len(read), len(gone), moved)


def ingest_folder(folder: Path, catalogues: str, say: Callable[[str], None]) -> Catalogue:
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
        raise DataError(f"{folder}: not one file is a readable image in a class folder; expected {folder}/<class>/<image>")
    return catalogue


def _table(catalogues: str, folder: Path, settings: IngestSettings, own_split: bool) -> str:
    """One table a folder and way of splitting: a change of either starts a history of its own."""
    key = [str(folder), settings.near_duplicate_bits, None if own_split else settings.shares.model_dump()]
    return f"{catalogues.rstrip('/')}/{folder.name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:10]}.lance"


def _old_version(catalogues: str, folder: Path, settings: IngestSettings, keep_split: bool) -> Catalogue:
    # The folder may be gone and cannot say whether it had splits of its own: of its histories, the one written last counts.
    ways = (False, True) if keep_split else (False,)
    histories = {uri: versions(uri) for uri in (_table(catalogues, folder, settings, own_split) for own_split in ways)}
    uri = max(histories, key=lambda uri: sorted(histories[uri].values())[-1:])
    if settings.version not in histories[uri]:
        raise ConfigError(f"ingest.version: {settings.version} is not a version of {uri}; there are {list(histories[uri]) or 'none'}")
    return Catalogue(uri, settings.version)


def _moved(known: pd.DataFrame, rows: pd.DataFrame) -> dict[str, int]:
    """Count, by the split they leave, the unchanged images that go to another split with the group they joined."""
    both = known.merge(rows, on=["path", "id"], suffixes=("", "_now"))
    left = both[(both["status_now"] == "ok") & (both["split"] != both["split_now"])]
    return {str(split): int(count) for split, count in left["split"].value_counts().items()}


def _report(catalogue: Catalogue, found: int, read: int, removed: int, moved: dict[str, int]) -> IngestReport:
    state, frame = catalogue.state, catalogue.frame
    counts = {str(status): int(count) for status, count in state["status"].value_counts().items()}
    remarks = [f"{row.path}: {row.status}: {row.reason}" for row in state[state["reason"].ne("")].itertuples()]
    sizes = frame["label"].value_counts()
    remarks += [f"class {label} has one image: it is never a query or a positive" for label in sizes.index[sizes == 1]]
    crossing = int((frame.groupby("group")["split"].nunique() > 1).sum())
    if crossing:
        remarks.append(f"{crossing} groups of near-duplicates lie in more than one of the folder's own splits")
    remarks += [f"{count} images left {split} because their group joined an older one" for split, count in moved.items()]
    return IngestReport(found, read, removed, counts, crossing, moved, remarks)


def require_classes(frame: pd.DataFrame, folder: Path) -> None:
    """Raise DataError unless a catalogue's frame has two classes, one of them of two images; `folder` is named."""
    sizes = frame["label"].value_counts()
    if not len(sizes):
        raise DataError(f"{folder}: not one file is a readable image in a class folder; expected {folder}/<class>/<image>")
    if len(sizes) == 1:
        raise DataError(f"{folder}: only one class, {sizes.index[0]}; similarity needs at least two class folders")
    if (sizes >= 2).sum() == 0:
        raise DataError(f"{folder}: no class has two images; put at least two similar ones into a class folder")

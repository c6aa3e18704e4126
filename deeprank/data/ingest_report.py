"""Counts and messages of an ingest: files that need attention, grouped by reason, with the most important first."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.data.folder import CANNOT_BE_READ, NOT_IN_A_CLASS
from deeprank.data.images import NOT_AN_IMAGE
from deeprank.data.listing import EXCLUDED_REASON, SYSTEM_REASON
from deeprank.data.splits import USABLE

MAX_EXAMPLES = 10
DETAIL_COLUMNS = ["path", "status", "reason"]
# Groups of rejected files that come last: they are no images that the user would miss.
MINOR_REASONS = ("outside ", NOT_IN_A_CLASS, NOT_AN_IMAGE)


@dataclass(frozen=True)
class IngestReport:
    """Counts and messages of one ingest.

    Attributes:
        num_files: files in the folder that are not skipped; the sum of `status_counts`.
        num_read: files that were new or changed.
        num_removed: files that are no longer in the folder.
        status_counts: number of files by status.
        num_crossing_groups: duplicate groups in more than one of the folder's own splits.
        split_changes: number of images that left each split because their duplicate group was joined to an older one.
        messages: one line about each kind of file, class or group that needs attention, with at most MAX_EXAMPLES examples.
        num_skipped: files and folders that are not listed, each folder counted once.
        num_label_conflicts: near-duplicate groups in more than one class, files with the same bytes included.
        details: path, status and reason of every file that is not an ordinary image, and of every file and folder that was skipped.

    """

    num_files: int
    num_read: int
    num_removed: int
    status_counts: dict[str, int]
    num_crossing_groups: int
    split_changes: dict[str, int]
    messages: list[str]
    num_skipped: int = 0
    num_label_conflicts: int = 0
    details: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=DETAIL_COLUMNS))

    def metrics(self) -> dict[str, float]:
        """Return the counts by metric name; files.ok + files.duplicate + files.rejected = files.total."""
        by_status = {status: self.status_counts.get(status, 0) for status in ("ok", "duplicate", "rejected")}
        counts = {"total": self.num_files, "read": self.num_read, "removed": self.num_removed, "skipped": self.num_skipped, **by_status}
        others = {"groups_across_splits": self.num_crossing_groups, "label_conflicts": self.num_label_conflicts}
        return {f"files.{name}": float(count) for name, count in counts.items()} | {name: float(count) for name, count in others.items()}


def report_ingest(
    catalogue: Catalogue,
    num_read: int = 0,
    num_removed: int = 0,
    split_changes: Mapping[str, int] | None = None,
    skipped: Mapping[str, str] | None = None,
    first_messages: Sequence[str] = (),
) -> IngestReport:
    """Return the report of an ingest that ended in a catalogue version.

    Args:
        catalogue: its newest version.
        num_read: files that were new or changed.
        num_removed: files that are no longer in the folder.
        split_changes: see IngestReport.
        skipped: reason by path of the files and folders that were not listed.
        first_messages: lines about the folder, which come first.

    """
    state, frame = catalogue.state, catalogue.frame
    skipped, split_changes = dict(skipped or {}), dict(split_changes or {})
    conflicts = _label_conflicts(state)
    num_crossing_groups = int((frame.groupby("duplicate_group")["split"].nunique() > 1).sum())
    messages = [*first_messages, *_conflict_messages(conflicts), *_skipped_messages(skipped), *_rejected_messages(state)]
    messages += [*_label_messages(frame), *_class_size_messages(frame)]
    if num_crossing_groups:
        messages.append(f"{num_crossing_groups} near-duplicate groups are in more than one of the folder's own splits")
    messages += [
        f"{count} images left {split} because their near-duplicate group was joined to an older one"
        for split, count in split_changes.items()
    ]
    messages += [*_duplicate_messages(state), *_converted_messages(frame), *_program_messages(skipped)]
    rows = state.loc[state["reason"].ne(""), DETAIL_COLUMNS]
    others = pd.DataFrame([(path, "skipped", reason) for path, reason in skipped.items()], columns=DETAIL_COLUMNS)
    return IngestReport(
        num_files=len(state), num_read=num_read, num_removed=num_removed,
        status_counts={str(status): int(count) for status, count in state["status"].value_counts().items()},
        num_crossing_groups=num_crossing_groups, split_changes=split_changes, messages=[_one_line(message) for message in messages],
        num_skipped=len(skipped), num_label_conflicts=len(conflicts),
        details=pd.concat([rows, others], ignore_index=True) if len(others) else rows.reset_index(drop=True),
    )  # fmt: skip


def _label_conflicts(state: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each near-duplicate group in more than one class: the first row of each image and class."""
    usable = state[state["status"].isin(USABLE)].drop_duplicates(["duplicate_group", "id", "label"])
    conflicting = usable[usable.groupby("duplicate_group")["label"].transform("nunique") > 1]
    return [group for _, group in conflicting.groupby("duplicate_group", sort=False)]


def _conflict_messages(conflicts: list[pd.DataFrame]) -> list[str]:
    """Return a line for files with the same bytes, of which one class keeps the image, and one for near-duplicates."""
    exact = [group for group in conflicts if group["id"].nunique() == 1]
    near = [group for group in conflicts if group["id"].nunique() > 1]
    messages = []
    if exact:
        pairs = [_paths_by_class(group, " = ") for group in exact]
        messages.append(f"{_count(len(pairs), 'image')} in more than one class; only one class keeps it: {_examples(pairs)}")
    if near:
        pairs = [_paths_by_class(group, " ~ ") for group in near]
        messages.append(
            f"{_count(len(pairs), 'near-duplicate group')} in more than one class; each class keeps its images: {_examples(pairs)}"
        )
    return messages


def _paths_by_class(group: pd.DataFrame, sign: str) -> str:
    """Return the first path of each class, of three classes at most."""
    paths = group.drop_duplicates("label")["path"].tolist()
    return sign.join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _skipped_messages(skipped: Mapping[str, str]) -> list[str]:
    """Return a line for folders that could not be read, and one for links that were not followed."""
    unreadable = [
        f"{path} ({reason.removeprefix(CANNOT_BE_READ)})" for path, reason in skipped.items() if reason.startswith(CANNOT_BE_READ)
    ]
    other = [
        f"{path} ({reason})"
        for path, reason in skipped.items()
        if reason not in (SYSTEM_REASON, EXCLUDED_REASON) and not reason.startswith(CANNOT_BE_READ)
    ]
    messages = [f"{_count(len(unreadable), 'folder')} skipped because it cannot be read: {_examples(unreadable)}"] if unreadable else []
    return messages + ([f"{_count(len(other), 'link')} not followed: {_examples(other)}"] if other else [])


def _program_messages(skipped: Mapping[str, str]) -> list[str]:
    """Return a line for the files of other programs, and one for the files that ingest.exclude names."""
    messages = []
    for reason, text in ((SYSTEM_REASON, "of other programs skipped"), (EXCLUDED_REASON, "skipped by ingest.exclude")):
        paths = [path for path, value in skipped.items() if value == reason]
        num_folders = sum(path.endswith("/") for path in paths)
        if paths:
            counts = " and ".join(_count(n, kind) for n, kind in ((len(paths) - num_folders, "file"), (num_folders, "folder")) if n)
            messages.append(f"{counts} {text}: {_examples(paths)}")
    return messages


def _rejected_messages(state: pd.DataFrame) -> list[str]:
    """Return a line for each kind of reason; images that are damaged or not readable come first, files that are no images last."""
    rejected = state[state["status"] == "rejected"]
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, reason in zip(rejected["path"], rejected["reason"], strict=True):
        groups.setdefault(re.sub(r"\d+", "N", reason.split(": ", 1)[0]), []).append((path, reason))

    def order(kind: str) -> tuple[int, int]:
        minor = next((rank for rank, text in enumerate(MINOR_REASONS, 1) if kind.startswith(text)), 0)
        return minor, -len(groups[kind])

    messages = []
    for kind in sorted(groups, key=order):
        files = groups[kind]
        if len({reason for _, reason in files}) == 1:
            messages.append(f"{_count(len(files), 'file')} rejected: {files[0][1]}: {_examples([path for path, _ in files])}")
        else:
            messages.append(f"{_count(len(files), 'file')} rejected: {_examples([f'{path} ({reason})' for path, reason in files])}")
    return messages


def _label_messages(frame: pd.DataFrame) -> list[str]:
    """Return a line for labels that differ only in case or in spaces at the end of a name."""
    similar: dict[str, list[str]] = {}
    for label in sorted(frame["label"].unique()):
        similar.setdefault("/".join(name.strip() for name in label.casefold().split("/")), []).append(label)
    groups = [" and ".join(repr(label) for label in labels) for labels in similar.values() if len(labels) > 1]
    return [f"classes whose names differ only in case or spaces are kept apart: {_examples(groups)}"] if groups else []


def _class_size_messages(frame: pd.DataFrame) -> list[str]:
    sizes = frame["label"].value_counts()
    single = sorted(sizes.index[sizes == 1])
    if len(single) > 1:
        return [f"{len(single)} classes have one image, which is never a query or a positive: {_examples(single)}"]
    return [f"class {label} has one image: it is never a query or a positive" for label in single]


def _duplicate_messages(state: pd.DataFrame) -> list[str]:
    duplicates = state[state["status"] == "duplicate"]
    pairs = [f"{path} ({reason})" for path, reason in zip(duplicates["path"], duplicates["reason"], strict=True)]
    return [f"{_count(len(pairs), 'file')} not used again: {_examples(pairs)}"] if pairs else []


def _converted_messages(frame: pd.DataFrame) -> list[str]:
    converted = frame[frame["reason"].ne("")]
    return [
        f"{_count(len(group), 'image')}: {reason}: {_examples(group['path'].tolist())}"
        for reason, group in converted.groupby("reason", sort=False)
    ]


def _examples(texts: Sequence[str]) -> str:
    """Return the first texts, and how many more there are."""
    more = f" and {len(texts) - MAX_EXAMPLES:,} more" if len(texts) > MAX_EXAMPLES else ""
    return ", ".join(texts[:MAX_EXAMPLES]) + more


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _one_line(message: str) -> str:
    """Return a message with line breaks and control characters of file names written as codes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in message)

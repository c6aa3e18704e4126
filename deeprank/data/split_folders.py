"""Recognize the folders of a train, val and test split by their names."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from deeprank.data.splits import SPLITS
from deeprank.errors import DataError

SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "validating", "vali", "dev", "devel", "development"),
    "test": ("test", "testing", "tests", "tst", "eval", "evaluation", "evaluate", "evaluating", "holdout", "heldout"),
}
# Words beside the name of a split, as in train_set, TrainData or images-train-2017.
FILLERS = "set|sets|split|data|dataset|datasets|image|images|img|imgs|photo|photos|folder|dir|samples|[0-9]+"
SPLIT_OF_NAME = {name: split for split, names in SPLIT_NAMES.items() for name in names}
MIN_SHARED_CLASSES = 2
MAX_NAMES = 10


@dataclass(frozen=True)
class SplitFolders:
    """The folders that are splits.

    Attributes:
        splits: split by name of the folder.
        val_is_test: whether the val folders serve as test, because there is no test folder.
        parent: relative path of the folder that holds them, with a slash at its end; empty if they are top folders.

    """

    splits: dict[str, str]
    val_is_test: bool = False
    parent: str = ""

    def split_and_label(self, path: str) -> tuple[str, str]:
        """Return the split and the label of a file, both empty for a file outside of these folders.

        Args:
            path: relative path with forward slashes.

        """
        if not path.startswith(self.parent):
            return "", ""
        split_folder, *folders = path.removeprefix(self.parent).split("/")[:-1] or [""]
        split = self.splits.get(split_folder, "")
        return split, "/".join(folders) if split else ""

    def outside(self) -> str:
        """Return the reason for which a file outside of these folders is rejected."""
        *most, last = (f"{self.parent}{name}/" for name in sorted(self.splits, key=lambda name: (SPLITS.index(split_of_name(name)), name)))
        return f"outside {', '.join(most)} and {last}, which this folder has"

    def messages(self) -> list[str]:
        """Return one line for each decision about the splits that the user may not expect."""
        result = []
        if self.parent:
            result.append(f"{self.parent} holds the splits {_folder_names(sorted(self.splits))}; its name is no part of a label")
        if self.val_is_test:
            folders = _folder_names(name for name, split in self.splits.items() if split == "test")
            result.append(f"there is no test folder: {folders} serves as the test split, and there is no val split")
        for split in SPLITS:
            names = [name for name, value in self.splits.items() if value == split]
            if len(names) > 1:
                result.append(f"{_folder_names(names)} together are the {split} split")
        return result


def split_of_name(name: str) -> str:
    """Return the split that a folder name stands for, in any case and with any separators; empty for another name."""
    # A camel-case name such as TrainSet is two words.
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words = re.sub(r"[\W_]+|(?<=[^\W\d_])(?=\d)", " ", words.casefold()).strip()
    split_words = [word for word in words.split() if not re.fullmatch(FILLERS, word)]
    if split_words in (["hold", "out"], ["held", "out"]):
        return "test"
    if len(split_words) != 1:
        return ""
    return SPLIT_OF_NAME.get(split_words[0]) or SPLIT_OF_NAME.get(re.sub(f"({FILLERS})$", "", split_words[0]), "")


def find_split_folders(paths: Iterable[str]) -> SplitFolders | None:
    """Return the folders that are splits: a train folder, and a test or val folder; None for a folder of classes.

    They are top folders, or folders in the only top folder, or in the only folder of that one, and so on.

    Args:
        paths: relative paths of all files, with forward slashes.

    """
    folders = {path.rpartition("/")[0] for path in paths}
    for parent in wrapping_folders(folders):
        names = {folder.removeprefix(parent).split("/", 1)[0] for folder in folders if folder.startswith(parent)}
        splits = {name: split for name in sorted(names) if (split := split_of_name(name))}
        if not _are_splits(splits.values()):
            continue
        if "test" in splits.values():
            return SplitFolders(splits, parent=parent)
        splits = {name: "test" if split == "val" else split for name, split in splits.items()}
        return SplitFolders(splits, val_is_test=True, parent=parent)
    return None


def wrapping_folders(folders: Collection[str]) -> list[str]:
    """Return the folders that may hold the split folders: the top, then its only folder, then the only folder of that one, and so on.

    Args:
        folders: relative paths of all folders, with forward slashes; empty for the top.

    Returns:
        paths with a slash at the end; empty for the top. A folder with the name of a split ends the list.

    """
    result = [""]
    while True:
        names = {folder.removeprefix(result[-1]).split("/", 1)[0] for folder in folders if folder.startswith(result[-1])} - {""}
        if len(names) != 1 or split_of_name(name := names.pop()):
            return result
        result.append(f"{result[-1]}{name}/")


def _are_splits(splits: Iterable[str]) -> bool:
    return "train" in splits and len(set(splits)) > 1


def folders_with_splits(paths: Iterable[str]) -> list[str]:
    """Return the folders at any depth that hold a train folder, and a test or val folder.

    Args:
        paths: relative paths of all files, with forward slashes.

    """
    splits: dict[str, set[str]] = {}
    for folder in {path.rpartition("/")[0] for path in paths}:
        names = folder.split("/")
        for depth, name in enumerate(names):
            splits.setdefault("/".join(names[:depth]), set()).add(split_of_name(name))
    return sorted(folder for folder, values in splits.items() if _are_splits(values - {""}))


def shared_class_names(paths: Iterable[str]) -> str:
    """Return which top folders hold the same class folders, in words; empty unless at least half of the classes, and two, are shared.

    Args:
        paths: relative paths of all files, with forward slashes.

    """
    classes: dict[str, set[str]] = {}
    for path in paths:
        top, *folders = unicodedata.normalize("NFC", path).split("/")[:-1] or [""]
        if folders:
            classes.setdefault(top, set()).add("/".join(folders).casefold())
    counts = Counter(name for names in classes.values() for name in names)
    shared = sorted(name for name, count in counts.items() if count > 1)
    if len(shared) < MIN_SHARED_CLASSES or 2 * len(shared) < len(counts):
        return ""
    tops = [top for top, names in sorted(classes.items()) if names & set(shared)]
    return f"{_folder_names(tops)} have the same class folders ({len(shared)} of {len(counts)}: {_short_list(shared)})"


def require_distinct_classes(paths: Iterable[str], folder: object) -> None:
    """Check that the top folders, which are no splits, do not hold the same class folders or split folders.

    Args:
        paths: relative paths of all files, with forward slashes.
        folder: of the images, for the error message.

    Raises:
        DataError: they do: each class would become several classes.

    """
    paths = list(paths)
    parents = folders_with_splits(paths)
    if parents:
        raise DataError(
            f"{folder}: split folders such as train/ and test/ are in {_folder_names(parents)}, but other folders are beside. Are these "
            f"splits or classes? Splits: set ingest.source to the folder that holds them, or move them up to {folder}/train/ and "
            f"{folder}/test/. Classes: set ingest.shared_class_names=keep"
        )
    shared = shared_class_names(paths)
    if shared:
        raise DataError(
            f"{folder}: {shared}. Are these splits, visits or classes? Splits: rename the folders to train/, val/ and test/. Visits: "
            "merge the class folders into one folder for each class. Classes: set ingest.shared_class_names=keep"
        )


def _folder_names(names: Iterable[str]) -> str:
    return _short_list([f"{name}/" for name in names])


def _short_list(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more

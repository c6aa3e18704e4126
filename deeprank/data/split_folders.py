"""Recognize the folders of a train, val and test split by their names."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
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
    """The top folders that are splits.

    Attributes:
        splits: split by name of the top folder.
        val_is_test: whether the val folders serve as test, because there is no test folder.

    """

    splits: dict[str, str]
    val_is_test: bool = False

    def outside(self) -> str:
        """Return the reason for which a file outside of these folders is rejected."""
        *most, last = (f"{name}/" for name in sorted(self.splits, key=lambda name: (SPLITS.index(split_of_name(name)), name)))
        return f"outside {', '.join(most)} and {last}, which this folder has"

    def messages(self) -> list[str]:
        """Return one line for each decision about the splits that the user may not expect."""
        result = []
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
    """Return the top folders that are splits: a train folder, and a test or val folder; None for a folder of classes.

    Args:
        paths: relative paths of all files, with forward slashes.

    """
    tops = {path.split("/", 1)[0] for path in paths if "/" in path}
    splits = {top: split for top in sorted(tops) if (split := split_of_name(top))}
    if "train" not in splits.values() or len(set(splits.values())) < 2:
        return None
    if "test" in splits.values():
        return SplitFolders(splits)
    return SplitFolders({top: "test" if split == "val" else split for top, split in splits.items()}, val_is_test=True)


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
    """Check that the top folders, which are no splits, do not hold the same class folders.

    Args:
        paths: relative paths of all files, with forward slashes.
        folder: of the images, for the error message.

    Raises:
        DataError: they do: each class would become several classes.

    """
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

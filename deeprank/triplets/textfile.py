"""Read and write the triplet file of the original Keras scripts.

One `query,positive,negative` a line, without a header; names with commas are quoted as in CSV.
"""

import csv
import os.path
from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.errors import DataError

MAX_LINES_IN_ERROR = 5
UNKNOWN_HINT = (
    "Images that could not be read and duplicate images are not among the images: `deeprank triplets` and the log of ingest name them"
)
SPLIT_HINT = "Images of val and test are kept for evaluation: remove their lines, or sample from a folder of the train split alone"


def write_triplet_file(file: Path, frame: pd.DataFrame, paths: list[str], prefix: str = "") -> None:
    """Write triplets as text.

    Args:
        file: where to.
        frame: columns query, positive and negative: indices into `paths`.
        paths: of the images.
        prefix: folder to put before each path.

    """
    names = [_quote(f"{prefix.rstrip('/')}/{path}" if prefix else path) for path in paths]
    with file.open("w", newline="", encoding="utf-8") as text:
        for query, positive, negative in frame[["query", "positive", "negative"]].to_numpy().tolist():
            text.write(f"{names[query]},{names[positive]},{names[negative]}\n")


def _quote(name: str) -> str:
    # csv.writer before Python 3.13 does not quote a carriage return, and a reader ends the line there.
    return '"' + name.replace('"', '""') + '"' if any(character in name for character in ',"\r\n') else name


def read_triplet_file(file: Path, paths: list[str], prefix: str = "", train_rows: npt.NDArray[np.int64] | None = None) -> pd.DataFrame:
    """Read triplets as indices into `paths`; the inverse of `write_triplet_file`.

    A name is one of `paths`, or `prefix` and one of `paths`, where the prefix may be relative or absolute. Without a prefix, and where no
    name is among `paths`, the common folder before a path is detected. Empty lines are skipped.

    Args:
        file: UTF-8 text, with or without a byte order mark, with any line ends.
        paths: of the images.
        prefix: folder before each path.
        train_rows: indices of the train split, which all images must be in; None for no such check.

    Returns:
        columns query, positive and negative.

    Raises:
        DataError: the file cannot be read, or a line does not have three names, or has a name that is not in `paths` or not in the
            train split; the message has the first few of these lines.

    """
    # Equal names get one number, so that each is looked up once.
    number = defaultdict[str, int](count().__next__)
    lines, numbers = array("q"), array("q")
    errors: list[tuple[int, str]] = []
    for line, fields in _records(file):
        if len(fields) == 3:
            lines.append(line)
            numbers.extend([number[name] for name in fields])
        else:
            errors.append((line, f"{len(fields)} name{'s'[: len(fields) != 1]} instead of query,positive,negative"))
    names = list(number)
    name_numbers = np.array(numbers, dtype=np.int64).reshape(-1, 3)
    rows = _find_rows(names, paths, prefix)[name_numbers]
    is_usable = np.zeros(len(paths) + 1, dtype=bool)  # The last entry is that of an unknown name, -1.
    is_usable[np.arange(len(paths)) if train_rows is None else train_rows] = True
    wrong = np.flatnonzero(~is_usable[rows].all(axis=1))
    if errors or len(wrong):
        for i in wrong[:MAX_LINES_IN_ERROR].tolist():
            column = int(np.argmin(is_usable[rows[i]]))
            problem = "is not among the images" if rows[i, column] < 0 else "is not in the train split"
            errors.append((lines[i], f"{names[name_numbers[i, column]] or 'an empty name'} {problem}"))
        num_errors = len(errors) + max(len(wrong) - MAX_LINES_IN_ERROR, 0)
        hints = [UNKNOWN_HINT] * bool((rows < 0).any()) + [SPLIT_HINT] * bool((~is_usable[rows] & (rows >= 0)).any())
        raise DataError(_error_message(file, errors, num_errors, hints))
    return pd.DataFrame(rows, columns=["query", "positive", "negative"])


def _error_message(file: Path, errors: list[tuple[int, str]], num_errors: int, hints: list[str]) -> str:
    """Return a message with the first few errors by line, the number of further ones, and the hints."""
    messages = [f"line {line}: {problem}" for line, problem in sorted(errors)[:MAX_LINES_IN_ERROR]]
    if num_errors > len(messages):
        messages.append(f"and {num_errors - len(messages):,} more lines")
    return f"{file}, " + "\n".join([*messages, *hints])


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line number and the fields of each record that is not empty; a quoted name may contain line ends."""
    line = 1
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="backslashreplace") as text:
            reader = csv.reader(text, strict=True)
            for fields in reader:
                if fields:
                    yield line, fields
                line = reader.line_num + 1
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise DataError(f"{file}, line {line}: {error}; put a name with a comma in quotes, and double the quotes within it") from None


def _find_rows(names: list[str], paths: list[str], prefix: str) -> npt.NDArray[np.int64]:
    """Return the index into `paths` of each name, -1 for an unknown name."""
    row_of = {path: row for row, path in enumerate(paths)}
    if not prefix and not any(os.path.normpath(name) in row_of or name in row_of for name in names):
        prefix = next(filter(None, (_folder_before_path(name, row_of) for name in names)), "")
    spellings = (prefix, os.path.normpath(prefix), os.path.normpath(Path(prefix).absolute())) if prefix else ()
    folders = [f"{spelling.rstrip('/')}/" for spelling in spellings]

    def find(name: str) -> int:
        for spelling in (name, os.path.normpath(name)):
            for folder in (*folders, ""):
                if spelling.startswith(folder) and (row := row_of.get(spelling[len(folder) :])) is not None:
                    return row
        return -1

    return np.array([find(name) for name in names], dtype=np.int64)


def _folder_before_path(name: str, row_of: dict[str, int]) -> str:
    """Return the shortest folder before a known path, or an empty string."""
    ends = [end for end, character in enumerate(name) if character == "/" and name[end + 1 :] in row_of]
    return name[: ends[0]] or "/" if ends else ""

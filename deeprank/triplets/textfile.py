"""The seed's triplet file: one `query,positive,negative` a line, no header; names with commas are quoted as in CSV."""

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

NAMED = 5
HINT = "Not among them are images that could not be read or are there twice: `deeprank triplets` and the log of ingest name them"
HELD_BACK = "Images of val and test are kept to test with: leave their lines out, or draw from a folder of the train split alone"


def write_triplet_file(file: Path, frame: pd.DataFrame, paths: list[str], prefix: str = "") -> None:
    """Write triplets as text.

    Args:
        file: where to.
        frame: columns query, positive, negative: indices into `paths`.
        paths: of the images.
        prefix: folder to put before each path.

    """
    names = [_quoted(f"{prefix.rstrip('/')}/{path}" if prefix else path) for path in paths]
    with file.open("w", newline="", encoding="utf-8") as out:
        for query, positive, negative in frame[["query", "positive", "negative"]].to_numpy().tolist():
            out.write(f"{names[query]},{names[positive]},{names[negative]}\n")


def _quoted(name: str) -> str:
    # Not csv.writer: before Python 3.13 it leaves a carriage return unquoted, and a reader breaks the line there.
    return '"' + name.replace('"', '""') + '"' if any(mark in name for mark in ',"\r\n') else name


def read_triplet_file(file: Path, paths: list[str], prefix: str = "", train: npt.NDArray[np.int64] | None = None) -> pd.DataFrame:
    """Read triplets as indices into `paths`; columns query, positive, negative; the inverse of `write_triplet_file`.

    A name is one of `paths`, or one below the folder `prefix`, as it is given or absolute. Without a prefix, and if not one
    name is among `paths`, the folder that the names have in common before a path is found by itself. Empty lines are skipped.

    Args:
        file: UTF-8, with or without a byte order mark, lines ended in any way.
        paths: of the images.
        prefix: folder before each path.
        train: rows of the train split, where all images must be in it.

    Raises:
        DataError: the file cannot be read, or lines have not three names, name an image that is not in `paths` or not in
            the train split; the first few lines are said.

    """
    number = defaultdict[str, int](count().__next__)
    lines, names, wrong = array("q"), array("q"), []
    for line, fields in _records(file):
        if len(fields) == 3:
            lines.append(line)
            names.extend([number[name] for name in fields])
        else:
            wrong.append((line, f"{len(fields)} name{'s'[: len(fields) != 1]} instead of query,positive,negative"))
    rows = _rows(list(number), paths, prefix)[np.array(names, dtype=np.int64)].reshape(-1, 3)
    usable = np.zeros(len(paths) + 1, dtype=bool)  # the last is that of an unknown name, -1
    usable[np.arange(len(paths)) if train is None else train] = True
    bad = np.flatnonzero(~usable[rows].all(axis=1))
    if wrong or len(bad):
        spelled = list(number)
        for place in bad[:NAMED].tolist():
            column = int(np.argmin(usable[rows[place]]))
            where = "among the images" if rows[place, column] < 0 else "in the train split"
            wrong.append((lines[place], f"{spelled[names[3 * place + column]] or 'an empty name'} is not {where}"))
        told = [f"line {line}: {what}" for line, what in sorted(wrong)[:NAMED]]
        if more := len(wrong) + max(len(bad) - NAMED, 0) - len(told):
            told.append(f"and {more:,} more lines")
        if (rows < 0).any():
            told.append(HINT)
        if (~usable[rows] & (rows >= 0)).any():
            told.append(HELD_BACK)
        raise DataError(f"{file}, " + "\n".join(told))
    return pd.DataFrame(rows, columns=["query", "positive", "negative"])


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Give each record that is not empty with the line that it begins in; a quoted name may hold line ends."""
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
        raise DataError(f"{file}, line {line}: {error}; a name with a comma stands in quotes, and quotes in it are doubled") from None


def _rows(names: list[str], paths: list[str], prefix: str) -> npt.NDArray[np.int64]:
    """Return the row of each name, -1 for none."""
    row_of = {path: row for row, path in enumerate(paths)}
    if not prefix and not any(os.path.normpath(name) in row_of or name in row_of for name in names):
        prefix = next(filter(None, (_folder_before(name, row_of) for name in names)), "")
    spellings = (prefix, os.path.normpath(prefix), os.path.normpath(Path(prefix).absolute())) if prefix else ()
    folders = [f"{spelling.rstrip('/')}/" for spelling in spellings]

    def find(name: str) -> int:
        for spelling in (name, os.path.normpath(name)):
            for folder in (*folders, ""):
                if spelling.startswith(folder) and (row := row_of.get(spelling[len(folder) :])) is not None:
                    return row
        return -1

    return np.array([find(name) for name in names], dtype=np.int64)


def _folder_before(name: str, row_of: dict[str, int]) -> str:
    """Return the shortest folder before a known path, or nothing."""
    cuts = [cut for cut, mark in enumerate(name) if mark == "/" and name[cut + 1 :] in row_of]
    return name[: cuts[0]] or "/" if cuts else ""

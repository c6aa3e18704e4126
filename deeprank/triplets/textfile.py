"""The seed's triplet file: one `query,positive,negative` a line, no header; names with commas are quoted as in CSV."""

import csv
from pathlib import Path

import pandas as pd

from deeprank.errors import DataError


def write_triplet_file(file: Path, frame: pd.DataFrame, paths: list[str], prefix: str = "") -> None:
    """Write triplets as text.

    Args:
        file: where to.
        frame: columns query, positive, negative: indices into `paths`.
        paths: of the photographs.
        prefix: folder to put before each path.

    """
    names = [f"{prefix.rstrip('/')}/{path}" if prefix else path for path in paths]
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        for query, positive, negative in frame[["query", "positive", "negative"]].to_numpy().tolist():
            writer.writerow((names[query], names[positive], names[negative]))


def read_triplet_file(file: Path, paths: list[str], prefix: str = "") -> pd.DataFrame:
    """Read triplets as indices into `paths`; columns query, positive, negative; the inverse of `write_triplet_file`.

    Raises:
        DataError: a line has not three names, or names a photograph that is not in `paths`; the line is named.

    """
    row_of = {f"{prefix.rstrip('/')}/{path}" if prefix else path: row for row, path in enumerate(paths)}
    rows = []
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        for names in reader:
            if len(names) != 3:
                raise DataError(f"{file}, line {reader.line_num}: {len(names)} names instead of query,positive,negative")
            missing = [name for name in names if name not in row_of]
            if missing:
                raise DataError(f"{file}, line {reader.line_num}: {missing[0]} is not among the photographs")
            rows.append([row_of[name] for name in names])
    return pd.DataFrame(rows, columns=["query", "positive", "negative"], dtype="int64")

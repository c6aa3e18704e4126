"""Reading files and printing results, for all commands."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deeprank.errors import DataError

console = Console(width=None if sys.stdout.isatty() else 200)


def read_bytes(file: Path) -> bytes:
    """Return a file's content.

    Raises:
        DataError: the file cannot be read.

    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def print_warning(message: str) -> None:
    """Print a message to standard error."""
    print(message, file=sys.stderr)


def print_result(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a result as JSON or as text."""
    print(json.dumps(result) if as_json else text)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows with the same keys as a table; floats have four decimals."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0]:
        table.add_column(str(column), overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table, highlight=False)

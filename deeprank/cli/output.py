"""Reading files and printing results, for all commands."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deeprank.errors import DataError

# The commands print labels, paths and names, in which square brackets and colons are ordinary characters.
plain_console = partial(Console, markup=False, emoji=False, highlight=False, soft_wrap=True)
console = plain_console(width=None if sys.stdout.isatty() else 200)


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


def print_error(error: Exception) -> None:
    """Print an error that the user can correct to standard error."""
    plain_console(stderr=True).print(Text.assemble(("Error:", "bold red"), f" {error}"))


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
    console.print(table, soft_wrap=False)

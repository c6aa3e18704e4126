"""One message for an error that the user can correct: its traceback goes to a log file instead of the terminal."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click
from zenml.logger import ZenMLConsoleHandler

from deeprank.errors import DeepRankError
from deeprank.home import home


class StepErrorFilter(logging.Filter):
    """Drops the records in which ZenML prints a DeepRankError or its traceback: the run ends with the message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is printed."""
        errors = [record.exc_info[1]] if record.exc_info else []
        if isinstance(record.args, tuple):
            errors += record.args
        return not (record.name.startswith("zenml") and any(isinstance(error, DeepRankError) for error in errors))


@contextmanager
def errors_as_messages(name: str) -> Iterator[None]:
    """End a run whose step raised a DeepRankError with its message once, and write its traceback to a log file.

    Other errors keep their traceback.

    Args:
        name: the pipeline's; the name of the log file starts with it.

    Raises:
        ClickException: the message, and the path of the log file; the exit code is 1.

    """
    error_filter = StepErrorFilter()
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, ZenMLConsoleHandler)]
    for handler in handlers:
        handler.addFilter(error_filter)
    try:
        yield
    except DeepRankError as error:
        raise click.ClickException(f"{error}\nThe traceback is in {_write_traceback(name, error)}") from None
    finally:
        for handler in handlers:
            handler.removeFilter(error_filter)


def _write_traceback(name: str, error: DeepRankError) -> Path:
    """Write an error's traceback to a log file in the state folder, and return the file."""
    file = home() / "logs" / f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(traceback.format_exception(error)))
    return file

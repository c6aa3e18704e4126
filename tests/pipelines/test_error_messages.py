"""An error for the user is one message with the path of the log file that has its traceback; other errors pass unchanged."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from zenml.logger import ZenMLConsoleHandler

from deeprank.errors import DataError
from pipelines.error_messages import errors_as_messages


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_HOME", str(tmp_path))


@pytest.fixture
def terminal() -> Iterator[io.StringIO]:
    """What ZenML prints."""
    stream = io.StringIO()
    handler = ZenMLConsoleHandler(stream)
    handler.setFormatter(logging.Formatter())
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


def _fail(error: Exception) -> None:
    """Raise an error and log it as ZenML does."""
    logger = logging.getLogger("zenml.orchestrators.local.local_orchestrator")
    try:
        raise error
    except Exception as raised:
        logger.error("Failed to run step `%s`: %s", "train", raised)
        logger.exception("Step %s failed.", "train")
        raise


def test_an_error_for_the_user_is_printed_once(tmp_path: Path, terminal: io.StringIO) -> None:
    with pytest.raises(click.ClickException) as error, errors_as_messages("training"):
        _fail(DataError("no images"))
    message, log = error.value.message.splitlines()
    assert (message, error.value.exit_code) == ("no images", 1)
    file = Path(log.removeprefix("The traceback is in "))
    assert file.parent == tmp_path / "logs"
    assert file.name.startswith("training-")
    assert file.read_text().startswith("Traceback (most recent call last):")
    assert file.read_text().endswith("DataError: no images\n")
    assert terminal.getvalue() == ""


def test_another_error_keeps_its_traceback(tmp_path: Path, terminal: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError), errors_as_messages("training"):
        _fail(ZeroDivisionError("a bug"))
    assert "Failed to run step `train`: a bug" in terminal.getvalue()
    assert "Traceback" in terminal.getvalue()
    assert not (tmp_path / "logs").exists()


def test_messages_are_printed_again_after_the_run(terminal: io.StringIO) -> None:
    with errors_as_messages("training"):
        pass
    with pytest.raises(DataError):
        _fail(DataError("no images"))
    assert "no images" in terminal.getvalue()

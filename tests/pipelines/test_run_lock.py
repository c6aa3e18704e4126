"""The run lock: a second run on a state folder ends or waits, and says so; a killed run leaves no lock behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipelines.run_lock import EXIT_CODE_LOCKED, WAIT_VARIABLE, exclusive_run

# Holds the lock until it reads a line. It has a script of its own because importing the lock's module imports all of ZenML.
HOLD_LOCK = """
import os, sys
from pathlib import Path
from filelock import FileLock
with FileLock(Path(sys.argv[1], "run.lock")):
    Path(sys.argv[1], "run.holder").write_text(f"retraining, process {os.getpid()}, since three")
    print("holding", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_HOME", str(tmp_path))
    monkeypatch.delenv(WAIT_VARIABLE, raising=False)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_a_second_run_ends_and_names_the_first(other: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(click.ClickException) as error, exclusive_run("training"):
        pass
    assert error.value.exit_code == EXIT_CODE_LOCKED == os.EX_TEMPFAIL
    assert f"{tmp_path} is in use by retraining, process {other.pid}, since three" in error.value.message
    assert "this run ends; DEEPRANK_WAIT=SECONDS makes it wait" in error.value.message


def test_a_second_run_waits_up_to_the_given_seconds(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "0.5")
    with pytest.raises(click.ClickException, match=r"also after 0\.5 s"), exclusive_run("training"):
        pass
    monkeypatch.setenv(WAIT_VARIABLE, "60")
    release = threading.Timer(0.5, other.communicate, ("\n",))
    release.start()
    with exclusive_run("training"):
        release.join()
        assert other.returncode == 0
    assert "waiting for up to 60 s" in capsys.readouterr().err


def test_a_killed_run_leaves_no_lock_behind(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run.holder").exists()
    with exclusive_run("training"):
        assert (tmp_path / "run.holder").read_text().startswith(f"training, process {os.getpid()}")
    assert not (tmp_path / "run.holder").exists()


def test_runs_may_follow_each_other(tmp_path: Path) -> None:
    for name in ("training", "refreshing"):
        with exclusive_run(name):
            assert (tmp_path / "run.holder").read_text().startswith(f"{name}, process {os.getpid()}")


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_an_invalid_waiting_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, text)
    with pytest.raises(click.ClickException, match=f"DEEPRANK_WAIT={text}: expected seconds"), exclusive_run("training"):
        pass

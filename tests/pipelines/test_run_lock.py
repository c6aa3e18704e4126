"""Two runs at once on one state folder: the second leaves or waits, and says so; a run that was killed keeps nobody out."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipelines.strict import TRY_AGAIN, WAIT, only_run

# Holds a state folder until it is told to end; as `only_run` does, which would first import all of ZenML.
HOLDS = """
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
    monkeypatch.delenv(WAIT, raising=False)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of a run."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_the_second_leaves_and_says_whom_it_met(other: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(click.ClickException) as left, only_run("training"):
        pass
    assert left.value.exit_code == TRY_AGAIN == os.EX_TEMPFAIL
    assert f"{tmp_path} is in use by retraining, process {other.pid}, since three" in left.value.message
    assert "this run leaves; DEEPRANK_WAIT=SECONDS makes it wait" in left.value.message


def test_the_second_waits_as_long_as_it_may(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(WAIT, "0.5")
    with pytest.raises(click.ClickException, match=r"also after 0\.5 s"), only_run("training"):
        pass
    monkeypatch.setenv(WAIT, "60")
    release = threading.Timer(0.5, other.communicate, ("\n",))
    release.start()
    with only_run("training"):
        release.join()
        assert other.returncode == 0
    assert "waiting for up to 60 s" in capsys.readouterr().err


def test_one_that_was_killed_keeps_nobody_out(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run.holder").exists()
    with only_run("training"):
        assert (tmp_path / "run.holder").read_text().startswith(f"training, process {os.getpid()}")
    assert not (tmp_path / "run.holder").exists()


def test_one_after_the_other_is_no_matter(tmp_path: Path) -> None:
    for name in ("training", "refreshing"):
        with only_run(name):
            assert (tmp_path / "run.holder").read_text().startswith(f"{name}, process {os.getpid()}")


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "inf"])
def test_a_time_to_wait_that_is_none_is_named(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAIT, given)
    with pytest.raises(click.ClickException, match=f"DEEPRANK_WAIT={given}: expected seconds"), only_run("training"):
        pass

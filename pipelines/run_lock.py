"""One run at a time on a state folder: a second run exits with code 75, or waits as long as DEEPRANK_WAIT says."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import click
from filelock import FileLock, Timeout

from deeprank.home import home

# The environment variable with the seconds that a run waits for another one; unset or 0: it does not wait.
WAIT_VARIABLE = "DEEPRANK_WAIT"
# EX_TEMPFAIL of sysexits.h: the same command may succeed later.
EXIT_CODE_LOCKED = 75


@contextmanager
def exclusive_run(name: str) -> Iterator[None]:
    """Hold the state folder's lock during a run.

    Two runs at once would write the same checkpoints and copies of releases, and would wait for each other's databases. The operating
    system releases the lock when the process ends, however it ends.

    Args:
        name: the pipeline's; the message to other runs holds it.

    Raises:
        ClickException: another run holds the lock; the exit code is 75.

    """
    home().mkdir(parents=True, exist_ok=True)
    lock, holder_file = FileLock(home() / "run.lock"), home() / "run.holder"
    wait_s = _wait_s()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = holder_file.read_text() if holder_file.exists() else "another run"
        _wait(lock, wait_s, f"{home()} is in use by {holder}")
    try:
        holder_file.write_text(f"{name}, process {os.getpid()}, since {datetime.now().astimezone().isoformat(' ', 'seconds')}")
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        lock.release()


def _wait(lock: FileLock, wait_s: float, message: str) -> None:
    if wait_s:
        click.echo(f"{message}; waiting for up to {wait_s:g} s", err=True)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        after = f", also after {wait_s:g} s" if wait_s else ""
        error = click.ClickException(f"{message}{after}: this run ends; {WAIT_VARIABLE}=SECONDS makes it wait")
        error.exit_code = EXIT_CODE_LOCKED
        raise error from None


def _wait_s() -> float:
    text = os.environ.get(WAIT_VARIABLE) or "0"
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1
    if not 0 <= wait_s < float("inf"):
        raise click.ClickException(f"{WAIT_VARIABLE}={text}: expected seconds, 0 or more")
    return wait_s

"""Schedules in the user's crontab: one entry for each config, which calls a script in the state folder."""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from crontab import CronItem, CronTab

from deeprank.errors import ConfigError
from deeprank.home import home
from pipelines.run_lock import WAIT_VARIABLE

# Comment of the project's entries in the crontab; state folder and config follow it.
CRONTAB_COMMENT = "deeprank retraining"
# Variables that the script sets, as cron starts with an almost empty environment.
VARIABLE_PREFIXES = ("DEEPRANK_", "MLFLOW_", "ZENML_", "OMP_", "PYTHONPATH")
# Variables with such a word are left out, as the script is a file.
SECRET_WORDS = ("TOKEN", "PASSWORD", "SECRET", "KEY")


@dataclass(frozen=True)
class ScheduleEntry:
    """A schedule.

    Attributes:
        cron: the cron expression.
        config: the config's path, or its name if ZenML keeps the schedule.
        backend: `cron` or `ZenML`.
        log: the log file; empty if ZenML keeps the schedule.

    """

    cron: str
    config: str
    backend: str
    log: str


def log_file(config: Path) -> Path:
    """Return the log of the runs that cron starts with a config."""
    return home() / "logs" / f"{config.stem}.log"


def secret_variables() -> list[str]:
    """Return the names of the project's environment variables that are not written into a script."""
    return [name for name in _project_variables() if any(word in name for word in SECRET_WORDS)]


def _project_variables() -> dict[str, str]:
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLE_PREFIXES)}


def write_script(config: Path, stack: str | None, wait_s: float) -> Path:
    """Write the script that cron calls; it sets environment and folder as they are now, and appends to the log."""
    secrets = secret_variables()
    environment = {name: value for name, value in _project_variables().items() if name not in secrets}
    environment |= {"DEEPRANK_HOME": str(home()), "PATH": os.environ["PATH"], WAIT_VARIABLE: f"{wait_s:g}"}
    zenml = str(Path(sys.executable).with_name("zenml"))
    command = [zenml, "pipeline", "run", "pipelines.retraining", "-c", str(config), *(["-s", stack] if stack else [])]
    log, script = log_file(config), home() / "schedule" / f"{config.stem}.sh"
    lines = [
        "#!/bin/sh",
        "# Written by `deeprank schedule install`, which overwrites it.",
        f"exec >> {shlex.quote(str(log))} 2>&1",
        'echo "== $(date "+%F %T") process $$ starting"',
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(command)}",
        "code=$?",
        'echo "== $(date "+%F %T") process $$ ended with exit code $code"',
        "exit $code",
    ]
    for folder in (script.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    script.touch(mode=0o700)
    script.write_text("\n".join(lines) + "\n")
    return script


def user_crontab() -> CronTab:
    """Return this user's crontab.

    Raises:
        ConfigError: cron is not installed, or the user may not have a crontab.

    """
    if shutil.which("crontab") is None:
        raise ConfigError("cron is not installed (no crontab command): run `apt install cron`, or choose a stack that takes schedules")
    try:
        return CronTab(user=True)
    except OSError as error:
        raise ConfigError(f"the crontab cannot be read: {error}") from None


def save(crontab: CronTab) -> None:
    """Write a crontab back.

    Raises:
        ConfigError: a line of it would change, or it cannot be written.

    """
    try:
        # Without `errors`, python-crontab would comment out the lines that it cannot parse; they may be another program's.
        crontab.render(errors=True)
        crontab.write()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the crontab was not changed: {error}; see `crontab -e`") from None


def _comment_prefix() -> str:
    return f"{CRONTAB_COMMENT} {home()} "


def _own_items(crontab: CronTab, config: Path | None) -> list[tuple[CronItem, Path]]:
    prefix = _comment_prefix()
    items = [(item, Path(item.comment.removeprefix(prefix))) for item in crontab if item.comment.startswith(prefix)]
    return [(item, path) for item, path in items if config is None or path.stem == config.stem]


def set_entry(crontab: CronTab, cron: str, script: Path, config: Path) -> None:
    """Add an entry for a config to a crontab; it replaces the entry for a config of the same name.

    Raises:
        ConfigError: a crontab cannot hold the script's path.

    """
    remove_entries(crontab, config)
    command = shlex.quote(str(script))
    if " #" in command or "\n" in command + str(config):
        raise ConfigError(f"{script}: a crontab cannot hold this path; choose another DEEPRANK_HOME")
    crontab.new(command=command, comment=f"{_comment_prefix()}{config}").setall(cron)


def remove_entries(crontab: CronTab, config: Path | None) -> int:
    """Remove the entry for a config, or all entries of this state folder, from a crontab; return their number."""
    items = _own_items(crontab, config)
    crontab.remove(*(item for item, _ in items))
    return len(items)


def crontab_entries(crontab: CronTab) -> list[ScheduleEntry]:
    """Return the entries of this state folder in a crontab."""
    return [
        ScheduleEntry(item.slices.clean_render(), str(config), "cron", str(log_file(config))) for item, config in _own_items(crontab, None)
    ]

"""`python -m pipelines.schedule install | list | remove` (`deeprank schedule …`): retraining at fixed times.

On a stack whose orchestrator takes schedules it is ZenML's own; on the local one an entry in this user's crontab, which calls a
script in the state folder.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from crontab import CronItem, CronSlices, CronTab
from rich.console import Console
from zenml.cli.utils import temporary_active_stack
from zenml.client import Client
from zenml.config.schedule import Schedule

from deeprank.errors import ConfigError, DeepRankError
from deeprank.home import home
from pipelines.retraining import retraining
from pipelines.strict import WAIT, check_config

# What the crontab's entries of ours have as comment, before state folder and config.
MARK = "deeprank retraining"
# What the names of ZenML's schedules of ours start with, before the config's.
PREFIX = "deeprank-"
# Of the environment goes with an entry, as cron starts with next to nothing. Secrets do not: they would lie in a file.
CARRIED = ("DEEPRANK_", "MLFLOW_", "ZENML_", "OMP_", "PYTHONPATH")
SECRET = ("TOKEN", "PASSWORD", "SECRET", "KEY")

app = typer.Typer(help="Retrain on a schedule.", no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(width=None if sys.stdout.isatty() else 200, soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Entry:
    """One schedule: its cron expression, the config, who keeps it (cron or ZenML), and where its log is."""

    cron: str
    config: str
    kept_by: str
    log: str


def main() -> None:
    """Run the command; an error the user can do something about is one message and exit code 1."""
    try:
        app(prog_name="deeprank schedule")
    except DeepRankError as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def install(
    cron: Annotated[str, typer.Option("--cron", help='When: minute hour day month weekday, e.g. "0 3 * * *".')],
    config: Annotated[Path, typer.Option("--config", help="A YAML file for pipelines.retraining.")] = Path("configs/retrain.yaml"),
    stack: Annotated[str | None, typer.Option("--stack", help="ZenML stack to run on; else the active one.")] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for another run on the state folder; 0: it leaves.")] = 0,
) -> None:
    """Have retraining run at fixed times; the schedule of a config of the same name is replaced."""
    cron, config = valid_cron(cron), valid_config(config)
    with _stack(stack):
        orchestrator = Client().active_stack.orchestrator
        if orchestrator.config.is_schedulable:
            _remove_from_zenml(config)
            # Kubeflow counts seconds too.
            expression = f"0 {cron}" if orchestrator.flavor == "kubeflow" else cron
            schedule = Schedule(name=f"{PREFIX}{config.stem}", cron_expression=expression)
            retraining.with_options(config_path=str(config), schedule=schedule)()
            console.print(
                f"{cron}: ZenML runs {config} on the {orchestrator.flavor} orchestrator of the stack {Client().active_stack.name}"
            )
            return
        if orchestrator.flavor != "local":
            raise ConfigError(
                f"the {orchestrator.flavor} orchestrator of the stack {Client().active_stack.name} takes no schedules: "
                "name another stack with --stack"
            )
    tab = user_crontab()
    put(tab, cron, write_script(config, stack, wait), config)
    save(tab)
    console.print(f"{cron}: cron runs {config}; log {_log(config)}")
    if shutil.which("pgrep") and subprocess.run(["pgrep", "-x", "cron|crond"], capture_output=True, check=False).returncode:
        console.print("[yellow]No cron daemon is running: nothing happens until one does (`service cron start`).[/]")


@app.command("list")
def list_schedules(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """List the schedules of this state folder."""
    found = _in_zenml() + (in_crontab(user_crontab()) if shutil.which("crontab") else [])
    if as_json:
        print(json.dumps([asdict(entry) for entry in found]))
        return
    for entry in found:
        console.print(f"{entry.cron}  {entry.config}  ({entry.kept_by}{f', log {entry.log}' if entry.log else ''})")
    if not found:
        console.print("No schedule: `deeprank schedule install` makes one.")


@app.command()
def remove(
    config: Annotated[Path | None, typer.Option("--config", help="Only the schedule of the config of this name; else all.")] = None,
) -> None:
    """Remove the schedules of this state folder."""
    gone = _remove_from_zenml(config)
    if shutil.which("crontab"):
        tab = user_crontab()
        dropped = drop(tab, config)
        if dropped:
            save(tab)
        gone += dropped
    console.print(f"{gone} schedule{'s' * (gone != 1)} removed")


def valid_cron(cron: str) -> str:
    """Return a cron expression of five fields with single spaces.

    Raises:
        ConfigError: it is none.

    """
    words = cron.split()
    if len(words) != 5 or not CronSlices.is_valid(" ".join(words)):
        raise ConfigError(f'--cron "{cron}" is no time: expected minute hour day month weekday, e.g. "0 3 * * *" for every night at three')
    return " ".join(words)


def valid_config(config: Path) -> Path:
    """Return the absolute path of a config that the retraining pipeline takes.

    Raises:
        ConfigError: there is none, or it has an unknown key or a wrong value.

    """
    if not config.is_file():
        raise ConfigError(f"--config {config} is no file; configs/retrain.yaml is a ready one")
    check_config(config, retraining.entrypoint)
    return config.resolve()


@contextmanager
def _stack(name: str | None) -> Iterator[None]:
    if name is not None and not Client().list_stacks(name=name).total:
        known = ", ".join(stack.name for stack in Client().list_stacks())
        raise ConfigError(f"--stack {name}: there is no such stack; there are {known}")
    with temporary_active_stack(stack_name_or_id=name):
        yield


def _log(config: Path) -> Path:
    return home() / "logs" / f"{config.stem}.log"


def write_script(config: Path, stack: str | None, wait: float) -> Path:
    """Write what cron calls: environment and folder as they are now, absolute paths, and the log that all goes to the end of."""
    carried = {name: value for name, value in sorted(os.environ.items()) if name.startswith(CARRIED)}
    secret = [name for name in carried if any(word in name for word in SECRET)]
    if secret:
        told = "Not carried over, as it would lie in a file; give each a line NAME=VALUE in `crontab -e`"
        console.print(f"[yellow]{told}: {', '.join(secret)}.[/]")
    environment = {name: value for name, value in carried.items() if name not in secret}
    environment |= {"DEEPRANK_HOME": str(home()), "PATH": os.environ["PATH"], WAIT: f"{wait:g}"}
    zenml = str(Path(sys.executable).with_name("zenml"))
    command = [zenml, "pipeline", "run", "pipelines.retraining", "-c", str(config), *(["-s", stack] if stack else [])]
    log, script = _log(config), home() / "schedule" / f"{config.stem}.sh"
    lines = [
        "#!/bin/sh",
        "# Written by `deeprank schedule install`, which replaces it.",
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
        ConfigError: cron is not installed, or does not let this user have one.

    """
    if shutil.which("crontab") is None:
        raise ConfigError("cron is not installed (there is no crontab command): `apt install cron`, or name a stack that takes schedules")
    try:
        return CronTab(user=True)
    except OSError as error:
        raise ConfigError(f"the crontab cannot be read: {error}") from None


def save(tab: CronTab) -> None:
    """Write a crontab back.

    Raises:
        ConfigError: a line of it would not come out as it went in, or it cannot be written.

    """
    try:
        # python-crontab would comment out what it does not understand, and others' lines are not ours to change.
        tab.render(errors=True)
        tab.write()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the crontab is left as it was: {error}; see `crontab -e`") from None


def _before_config() -> str:
    return f"{MARK} {home()} "


def _ours(tab: CronTab, config: Path | None) -> list[tuple[CronItem, Path]]:
    before = _before_config()
    found = [(item, Path(item.comment.removeprefix(before))) for item in tab if item.comment.startswith(before)]
    return [(item, of) for item, of in found if config is None or of.stem == config.stem]


def put(tab: CronTab, cron: str, script: Path, config: Path) -> None:
    """Give a crontab the one entry that a config has.

    Raises:
        ConfigError: a crontab cannot hold the path.

    """
    drop(tab, config)
    command = shlex.quote(str(script))
    if " #" in command or "\n" in command + str(config):
        raise ConfigError(f"{script}: a crontab cannot hold this path; choose another DEEPRANK_HOME")
    tab.new(command=command, comment=f"{_before_config()}{config}").setall(cron)


def drop(tab: CronTab, config: Path | None) -> int:
    """Take the entry of a config, or all entries of this state folder, out of a crontab, and return how many there were."""
    found = _ours(tab, config)
    tab.remove(*(item for item, _ in found))
    return len(found)


def in_crontab(tab: CronTab) -> list[Entry]:
    """Return the entries of this state folder in a crontab."""
    return [Entry(item.slices.clean_render(), str(config), "cron", str(_log(config))) for item, config in _ours(tab, None)]


def _in_zenml() -> list[Entry]:
    found = Client().list_schedules(is_archived=False, name=f"startswith:{PREFIX}", size=1000)
    return [Entry(str(schedule.cron_expression), schedule.name.removeprefix(PREFIX), "ZenML", "") for schedule in found]


def _remove_from_zenml(config: Path | None) -> int:
    wanted = [entry.config for entry in _in_zenml() if config is None or entry.config == config.stem]
    if wanted and not Client().active_stack.orchestrator.supports_schedule_deletion:
        console.print("[yellow]ZenML forgets the schedule, but this orchestrator goes on: delete its recurring run there, too.[/]")
    for name in wanted:
        Client().delete_schedule(f"{PREFIX}{name}")
    return len(wanted)


if __name__ == "__main__":
    main()

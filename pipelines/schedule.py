"""Run retraining at fixed times: `python -m pipelines.schedule install | list | remove`, or `deeprank schedule …`.

If the stack's orchestrator takes schedules, ZenML keeps the schedule. On the local orchestrator it is an entry in the user's
crontab, which calls a script in the state folder.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from crontab import CronSlices
from zenml.cli.utils import temporary_active_stack
from zenml.client import Client
from zenml.config.schedule import Schedule

from deeprank.cli.output import console, print_error
from deeprank.errors import ConfigError, DeepRankError
from pipelines.cron import (
    ScheduleEntry,
    crontab_entries,
    log_file,
    remove_entries,
    save,
    secret_variables,
    set_entry,
    user_crontab,
    write_script,
)
from pipelines.retraining import retraining
from pipelines.strict import check_config

# Prefix of the project's schedules in ZenML; the config's name follows it.
ZENML_PREFIX = "deeprank-"
app = typer.Typer(help="Retrain on a schedule.", no_args_is_help=True, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command; an error that the user can correct is printed as one message, with exit code 1."""
    try:
        app(prog_name="deeprank schedule")
    except DeepRankError as error:
        print_error(error)
        sys.exit(1)


@app.command()
def install(
    cron: Annotated[str, typer.Option("--cron", help='Minute, hour, day, month and weekday, e.g. "0 3 * * *" for every night at three.')],
    config: Annotated[Path, typer.Option("--config", help="Config of the pipeline pipelines.retraining.")] = Path("configs/retrain.yaml"),
    stack: Annotated[str | None, typer.Option("--stack", help="ZenML stack to run on; default: the active one.")] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds that a run waits for another run on the state folder; 0: it ends at once.")
    ] = 0,
) -> None:
    """Run retraining at fixed times; a schedule for a config of the same name is replaced."""
    cron, config = valid_cron(cron), valid_config(config)
    with _stack(stack):
        orchestrator = Client().active_stack.orchestrator
        described = f"the {orchestrator.flavor} orchestrator of the stack {Client().active_stack.name}"
        if orchestrator.config.is_schedulable:
            _remove_from_zenml(config)
            # Kubeflow has a field for seconds.
            expression = f"0 {cron}" if orchestrator.flavor == "kubeflow" else cron
            schedule = Schedule(name=f"{ZENML_PREFIX}{config.stem}", cron_expression=expression)
            retraining.with_options(config_path=str(config), schedule=schedule)()
            console.print(f"{cron}: ZenML runs {config} on {described}")
            return
        if orchestrator.flavor != "local":
            raise ConfigError(f"{described} takes no schedules: choose another stack with --stack")
    crontab = user_crontab()
    secrets = secret_variables()
    if secrets:
        console.print(
            f"Not written into the script, as secrets: {', '.join(secrets)}. Add NAME=VALUE for each in `crontab -e`.", style="yellow"
        )
    set_entry(crontab, cron, write_script(config, stack, wait), config)
    save(crontab)
    console.print(f"{cron}: cron runs {config}; log {log_file(config)}")
    if shutil.which("pgrep") and subprocess.run(["pgrep", "-x", "cron|crond"], capture_output=True, check=False).returncode:
        console.print("No cron daemon is running: start one with `service cron start`, or no run starts.", style="yellow")


@app.command("list")
def list_schedules(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """List the schedules of this state folder."""
    entries = _zenml_entries() + (crontab_entries(user_crontab()) if shutil.which("crontab") else [])
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries]))
        return
    for entry in entries:
        console.print(f"{entry.cron}  {entry.config}  ({entry.backend}{f', log {entry.log}' if entry.log else ''})")
    if not entries:
        console.print("No schedule: `deeprank schedule install` makes one.")


@app.command()
def remove(
    config: Annotated[
        Path | None, typer.Option("--config", help="Remove only the schedule of the config of this name; default: all.")
    ] = None,
) -> None:
    """Remove the schedules of this state folder."""
    count = _remove_from_zenml(config)
    if shutil.which("crontab"):
        crontab = user_crontab()
        in_crontab = remove_entries(crontab, config)
        if in_crontab:
            save(crontab)
        count += in_crontab
    console.print(f"{count} schedule{'s' * (count != 1)} removed")


def valid_cron(cron: str) -> str:
    """Return a cron expression of five fields, with single spaces between them.

    Raises:
        ConfigError: it is not a valid cron expression.

    """
    fields = cron.split()
    if len(fields) != 5 or not CronSlices.is_valid(" ".join(fields)):
        raise ConfigError(
            f'--cron "{cron}" is not a valid cron expression: expected minute hour day month weekday, '
            'e.g. "0 3 * * *" for every night at three'
        )
    return " ".join(fields)


def valid_config(config: Path) -> Path:
    """Return the absolute path of a config for the retraining pipeline.

    Raises:
        ConfigError: the file is missing, or has an unknown key or a wrong value.

    """
    if not config.is_file():
        raise ConfigError(f"--config {config} is not a file; configs/retrain.yaml is an example")
    check_config(config, retraining.entrypoint)
    return config.resolve()


@contextmanager
def _stack(name: str | None) -> Iterator[None]:
    if name is not None and not Client().list_stacks(name=name).total:
        known = ", ".join(stack.name for stack in Client().list_stacks())
        raise ConfigError(f"--stack {name}: no such stack; known: {known}")
    with temporary_active_stack(stack_name_or_id=name):
        yield


def _zenml_entries() -> list[ScheduleEntry]:
    schedules = Client().list_schedules(is_archived=False, name=f"startswith:{ZENML_PREFIX}", size=1000)
    return [ScheduleEntry(str(schedule.cron_expression), schedule.name.removeprefix(ZENML_PREFIX), "ZenML", "") for schedule in schedules]


def _remove_from_zenml(config: Path | None) -> int:
    names = [entry.config for entry in _zenml_entries() if config is None or entry.config == config.stem]
    if names and not Client().active_stack.orchestrator.supports_schedule_deletion:
        console.print("ZenML removes its schedule, but not this orchestrator's recurring run: delete that there, too.", style="yellow")
    for name in names:
        Client().delete_schedule(f"{ZENML_PREFIX}{name}")
    return len(names)


if __name__ == "__main__":
    main()

"""Configs that are read to the letter: ZenML ignores keys that it does not know, here they end the run before it starts."""

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout
from pydantic import ValidationError
from zenml.client import Client
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import StepConfigurationUpdate
from zenml.pipelines.pipeline_definition import Pipeline

from deeprank.errors import ConfigError, DeepRankError
from deeprank.home import home
from deeprank.settings import Settings, read_yaml
from pipelines.image import IMAGE

# Seconds that a run waits for another one; unset or 0: it leaves.
WAIT = "DEEPRANK_WAIT"
# What it leaves with, as in sysexits.h: not now, but another time.
TRY_AGAIN = 75


class StrictPipeline(Pipeline):
    """A pipeline that, before a run, checks its YAML file and that the stack tracks where MLFLOW_TRACKING_URI says; and runs alone."""

    def with_options(self, *args: Any, config_path: str | None = None, **kwargs: Any) -> "StrictPipeline":
        """Check the file, then do as ZenML does."""
        try:
            if config_path:
                check_config(Path(config_path), self.entrypoint)
            check_tracking()
        except DeepRankError as error:
            raise click.ClickException(str(error)) from None
        return super().with_options(*args, config_path=config_path, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, alone on this state folder where the steps run on this machine."""
        if not Client().active_stack.orchestrator.config.is_local:
            return super().__call__(*args, **kwargs)
        with only_run(self.name):
            return super().__call__(*args, **kwargs)


def strict_pipeline(**options: Any) -> Callable[[Callable[..., None]], StrictPipeline]:
    """Make a StrictPipeline of a function, whose steps run in the project's image; options as in `zenml.pipeline`."""
    return lambda function: StrictPipeline(name=function.__name__, entrypoint=function, settings={"docker": IMAGE}, **options)


def check_config(file: Path, entrypoint: Callable[..., None]) -> None:
    """Refuse a run configuration with a key that ZenML or a room of the library does not know, or a value of a wrong type.

    Raises:
        ConfigError: names file, key and the nearest right one.

    """
    config = read_yaml(file)
    _known(file, "", config, [*PipelineRunConfiguration.model_fields, "parameters"])
    rooms: dict[str, type[Settings]] = {name: parameter.annotation for name, parameter in signature(entrypoint).parameters.items()}
    parameters = config.get("parameters") or {}
    for section in (parameters, config.get("steps") or {}):
        if not isinstance(section, dict):
            raise ConfigError(f"{file}: expected keys and values under parameters and steps, found {section!r}")
    _known(file, "steps.", config.get("steps") or {}, [*rooms, "drift", "champion", "evaluate", "report", "refresh"])
    for name, options in (config.get("steps") or {}).items():
        if options is None:
            continue
        if not isinstance(options, dict):
            raise ConfigError(f"{file}: steps.{name}: expected keys and values, found {options!r}")
        # They could only contradict those of the pipeline, on which ZenML ends with a traceback.
        if "parameters" in options:
            raise ConfigError(f"{file}: unknown key steps.{name}.parameters; settings go under parameters: alone")
        _known(file, f"steps.{name}.", options, [key for key in StepConfigurationUpdate.model_fields if key != "parameters"])
    _known(file, "parameters.", parameters, list(rooms))
    for room, given in parameters.items():
        try:
            rooms[room].model_validate(given)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(file, room, rooms[room], problem) for problem in error.errors())) from None


def _known(file: Path, where: str, given: Iterable[str], known: list[str]) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{file}: unknown key {where}{key}{_nearest(str(key), known)}")


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), 1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def _explain(file: Path, room: str, model: Any, problem: Any) -> str:
    where = [str(part) for part in problem["loc"]]
    name = ".".join(["parameters", room, *where])
    if problem["type"] != "extra_forbidden":
        return f"{file}: {name}: {problem['msg']}, found {problem['input']!r}"
    for part in where[:-1]:
        if not hasattr(model, "model_fields") or part not in model.model_fields:
            return f"{file}: unknown key {name}"
        model = model.model_fields[part].annotation
    if not hasattr(model, "model_fields"):
        return f"{file}: unknown key {name}"
    return f"{file}: unknown key {name}{_nearest(where[-1], model.model_fields)}"


def check_tracking() -> None:
    """Refuse a stack without an MLflow tracker, or whose tracker is not where MLFLOW_TRACKING_URI says."""
    tracker = Client().active_stack.experiment_tracker
    if tracker is None:
        raise ConfigError(f"the stack {Client().active_stack.name} has no MLflow tracker: run `make setup`, or name another with -s")
    configured, wanted = tracker.config.tracking_uri, os.environ.get("MLFLOW_TRACKING_URI")
    if wanted and configured != wanted:
        raise ConfigError(f"MLFLOW_TRACKING_URI is {wanted}, but the stack tracks to {configured}: run `make setup` again to follow it")


@contextmanager
def only_run(name: str) -> Iterator[None]:
    """Hold the state folder's lock; where another run has it, wait as long as DEEPRANK_WAIT says, else leave.

    Two at once would write the same checkpoints and copies of releases, and wait for each other's databases. The system drops the
    lock with the process that holds it, however that ends.

    Raises:
        ClickException: another run goes on; the exit code is 75.

    """
    home().mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(home() / "run.lock"), home() / "run.holder"
    seconds = _waiting_seconds()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        used = f"{home()} is in use by {holder.read_text() if holder.exists() else 'another run'}"
        _wait(lock, seconds, used)
    try:
        holder.write_text(f"{name}, process {os.getpid()}, since {datetime.now().astimezone().isoformat(' ', 'seconds')}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _wait(lock: FileLock, seconds: float, used: str) -> None:
    if seconds:
        click.echo(f"{used}; waiting for up to {seconds:g} s", err=True)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        waited = f", also after {seconds:g} s" if seconds else ""
        leaving = click.ClickException(f"{used}{waited}: this run leaves; {WAIT}=SECONDS makes it wait")
        leaving.exit_code = TRY_AGAIN
        raise leaving from None


def _waiting_seconds() -> float:
    given = os.environ.get(WAIT) or "0"
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):
        raise click.ClickException(f"{WAIT}={given}: expected seconds, 0 or more")
    return seconds

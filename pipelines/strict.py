"""Strict pipelines: ZenML ignores unknown keys in a config; here they end the run before it starts."""

import os
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import click
import yaml
from zenml.client import Client
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import StepConfigurationUpdate
from zenml.enums import ExecutionMode
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.steps import BaseStep
from zenml.utils.env_utils import ENV_VARIABLE_PLACEHOLDER_PATTERN

from deeprank.data.ingest import IngestSettings
from deeprank.data.object_store import is_remote
from deeprank.errors import ConfigError, DeepRankError
from deeprank.evaluation.other_kind import EvaluateSettings
from deeprank.renamed_settings import renamed_words
from deeprank.settings import EXTENDS, Settings, extended_file, parse_settings, read_config, read_yaml, require_known
from pipelines.error_messages import errors_as_messages
from pipelines.image import IMAGE
from pipelines.run_lock import exclusive_run
from steps.artifacts.base import new_folder


class StrictPipeline(Pipeline):
    """A pipeline that checks its config and its stack before a run, and runs alone on the state folder."""

    def with_options(self, *args: Any, config_path: str | None = None, **kwargs: Any) -> "StrictPipeline":
        """Check the config and the stack, resolve `extends`, then do as ZenML does."""
        try:
            if config_path:
                check_config(Path(config_path), self.entrypoint)
                if not starts_containers():
                    check_source(Path(config_path))
                config_path = str(resolved_config(Path(config_path)))
            check_tracking()
        except DeepRankError as error:
            raise click.ClickException(str(error)) from None
        pipeline = self.copy()
        pipeline.fit_to_stack()
        return super(StrictPipeline, pipeline).with_options(*args, config_path=config_path, **kwargs)

    def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Prepare for a run or a build."""
        self.fit_to_stack()
        super().prepare(*args, **kwargs)

    def fit_to_stack(self) -> None:
        """Configure what the active stack needs.

        Steps run in the project's image if the stack starts containers; a config may add docker settings. If its orchestrator cannot
        end a run at the first failure, the steps that do not depend on the failed one go on.
        """
        if self.configuration.execution_mode not in Client().active_stack.orchestrator.supported_execution_modes:
            self.configure(execution_mode=ExecutionMode.CONTINUE_ON_FAILURE)
        if starts_containers() and "docker" not in self.configuration.settings:
            self.configure(settings={"docker": IMAGE})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; if the steps run on this machine, no other run may use the state folder, and an error for the user is one message."""
        if not Client().active_stack.orchestrator.config.is_local:
            return super().__call__(*args, **kwargs)
        with exclusive_run(self.name), errors_as_messages(self.name):
            return super().__call__(*args, **kwargs)


def strict_pipeline(**options: Any) -> Callable[[Callable[..., None]], StrictPipeline]:
    """Return a decorator that makes a StrictPipeline of a function; options as in `zenml.pipeline`."""
    return lambda function: StrictPipeline(name=function.__name__, entrypoint=function, **options)


def starts_containers() -> bool:
    """Return whether the active stack runs steps in containers, which ZenML then builds an image for."""
    stack = Client().active_stack
    return stack.orchestrator.flavor != "local" or stack.step_operator is not None


def resolved_config(file: Path) -> Path:
    """Return a temporary copy of a config as ZenML reads it: with the extended file's values, and without empty sections."""
    resolved = new_folder() / file.name
    resolved.write_text(yaml.safe_dump(read_config(file), sort_keys=False))
    return resolved


def check_source(file: Path) -> None:
    """Refuse a config one of whose folders of images is missing, before the first step starts.

    Raises:
        ConfigError: names file, key and folder.

    """
    parameters = read_config(file).get("parameters", {})
    ingest = IngestSettings.model_validate(parameters.get("ingest", {}))
    variable = os.environ.get("DEEPRANK_DATA") if ingest.source == "auto" else None
    folders = {"evaluate.other": EvaluateSettings.model_validate(parameters.get("evaluate", {})).other}
    # An old version is used without its folder.
    if ingest.version is None and (variable or ingest.source not in ("auto", "synthetic")):
        folders["the environment variable DEEPRANK_DATA" if variable else "ingest.source"] = variable or ingest.source
    for setting, name in folders.items():
        folder = Path(ENV_VARIABLE_PLACEHOLDER_PATTERN.sub(lambda match: os.environ[match[1]], name)).expanduser()
        if name and not is_remote(name) and not folder.is_dir():
            problem = "is a file" if folder.exists() else "does not exist"
            raise ConfigError(f"{file}: {folder} {problem}; {setting} must be a folder of <class>/<image>")


def check_config(file: Path, entrypoint: Callable[..., None]) -> None:
    """Refuse a config with a key that neither ZenML nor the pipeline's settings have, or with a value of a wrong type.

    Args:
        file: the config; if it extends another file, both are checked.
        entrypoint: the pipeline's function, whose parameters are settings.

    Raises:
        ConfigError: names file, key and the nearest known key.

    """
    for each in filter(None, (extended_file(file), file)):
        require_known(each, "", read_yaml(each), [*PipelineRunConfiguration.model_fields, EXTENDS])
        _check_content(each, read_config(each), entrypoint)


def _check_content(file: Path, content: dict[str, Any], entrypoint: Callable[..., None]) -> None:
    parameters, step_options = content.get("parameters") or {}, content.get("steps") or {}
    for section in (parameters, step_options):
        if not isinstance(section, dict):
            raise ConfigError(f"{file}: expected keys and values under parameters and steps, found {section!r}")
    _check_steps(file, step_options, entrypoint)
    _check_parameters(file, parameters, entrypoint)
    for variable in ENV_VARIABLE_PLACEHOLDER_PATTERN.findall(str(parameters)):
        if variable not in os.environ:
            raise ConfigError(f"{file}: ZenML replaces ${{{variable}}} by an environment variable, and {variable} is not set")


def _check_steps(file: Path, step_options: dict[str, Any], entrypoint: Callable[..., None]) -> None:
    _refuse_renamed(file, dict.fromkeys(step_options), "steps.")
    # The module of a pipeline imports its steps.
    step_names = [value.name for value in entrypoint.__globals__.values() if isinstance(value, BaseStep)]
    require_known(file, "steps.", step_options, step_names)
    for name, options in step_options.items():
        if options is None:
            continue
        if not isinstance(options, dict):
            raise ConfigError(f"{file}: steps.{name}: expected keys and values, found {options!r}")
        # Parameters here would contradict those of the pipeline, and ZenML would end with a traceback.
        if "parameters" in options:
            raise ConfigError(f"{file}: unknown key steps.{name}.parameters; settings go under parameters: alone")
        require_known(file, f"steps.{name}.", options, [key for key in StepConfigurationUpdate.model_fields if key != "parameters"])


def _check_parameters(file: Path, parameters: dict[str, Any], entrypoint: Callable[..., None]) -> None:
    _refuse_renamed(file, parameters, "parameters.")
    models: dict[str, type[Settings]] = {name: parameter.annotation for name, parameter in signature(entrypoint).parameters.items()}
    require_known(file, "parameters.", parameters, models)
    for name, values in parameters.items():
        parse_settings(models[name], values, file, name, "parameters.")


def _refuse_renamed(file: Path, values: dict[str, Any], prefix: str) -> None:
    messages = renamed_words(values, prefix=prefix)
    if messages:
        raise ConfigError("\n".join(f"{file}: {message}" for message in messages))


def check_tracking() -> None:
    """Refuse a stack without an MLflow tracker, or with one that tracks elsewhere than MLFLOW_TRACKING_URI says.

    Raises:
        ConfigError: says what the stack has and what to do.

    """
    tracker = Client().active_stack.experiment_tracker
    if tracker is None:
        raise ConfigError(f"the stack {Client().active_stack.name} has no MLflow tracker: run `make setup`, or name another with -s")
    stack_uri, variable_uri = tracker.config.tracking_uri, os.environ.get("MLFLOW_TRACKING_URI")
    if variable_uri and stack_uri != variable_uri:
        raise ConfigError(f"MLFLOW_TRACKING_URI is {variable_uri}, but the stack tracks to {stack_uri}: run `make setup` again")

"""MLflow tracking: what a step reports is logged while it runs, and again from its record if the step came from the cache."""

import logging
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from deeprank.home import PROJECT
from deeprank.reporting import ATTACHED, Record
from steps.artifacts.base import Artifact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = "deeprank"
TRACKER_SETTINGS = {"experiment_tracker": {"experiment_name": EXPERIMENT}}
FIGURES = "figures"
# The section of a step's settings, where it has another name than the step.
SECTIONS = {"ingest_other": "evaluate"}
# ZenML's tracker warns after each step about every MLflow flavor whose framework is not installed.
logging.getLogger("zenml.integrations.mlflow.experiment_trackers.mlflow_experiment_tracker").setLevel(logging.ERROR)


class MlflowReporter(Record):
    """A record that is also logged to the active MLflow run."""

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Record and log a number."""
        super().metric(name, value, step)
        mlflow.log_metric(name, value, step=step or 0)

    def note(self, name: str, value: str) -> None:
        """Record a text and log it as a tag."""
        super().note(name, value)
        mlflow.set_tag(name, value)

    def figure(self, name: str, figure: "Figure") -> None:
        """Record and log a figure."""
        super().figure(name, figure)
        mlflow.log_artifact(str(self.folder / f"{name}.png"), FIGURES)

    def attach(self, name: str, text: str) -> None:
        """Record and log a text file."""
        super().attach(name, text)
        mlflow.log_artifact(str(self.folder / ATTACHED / name))


def flatten(settings: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested settings as texts under dotted names, the form of MLflow's parameters."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def git_commit() -> str:
    """Return the commit of the code, with `-dirty` if the working tree differs from it.

    Without git or a checkout it is the commit that the container image was built from, or else `unknown`.
    """
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() if shutil.which("git") else ""
    return commit or os.environ.get("DEEPRANK_COMMIT") or "unknown"


def track_cached_steps() -> None:
    """Log the records of this pipeline run's cached steps to its MLflow run, so that every MLflow run is complete.

    This is the pipeline's clean-up hook. Orchestrators that call it after every step repeat it without harm.
    """
    client = Client()
    orchestrator_run = client.active_stack.orchestrator.get_orchestrator_run_id()
    run = client.list_pipeline_runs(orchestrator_run_id=orchestrator_run, hydrate=True).items[0]
    cached = [step for step in run.steps.values() if step.status == ExecutionStatus.CACHED]
    tracker = client.active_stack.experiment_tracker
    tracker.configure_mlflow()
    run_id = tracker.get_run_id(EXPERIMENT, run.name)
    for step in cached:
        for artifacts in step.outputs.values():
            artifact = artifacts[0].load()
            if isinstance(artifact, Artifact):
                replay(artifact.record, run_id)


def replay(record: Record, run_id: str) -> None:
    """Log a saved record to an MLflow run."""
    client = MlflowClient()
    start_time = client.get_run(run_id).info.start_time
    metrics = [Metric(point.name, point.value, start_time, point.step or 0) for point in record.points]
    tags = [RunTag(name, value) for name, value in record.notes.items()]
    client.log_batch(run_id, metrics=metrics, tags=tags)
    for file in record.figures.values():
        client.log_artifact(run_id, str(file), FIGURES)
    for file in record.attached:
        client.log_artifact(run_id, str(file))


def registry_uri() -> str:
    """Return the address of the model registry; a release is registered in one registry only."""
    # The stack says it, not the environment or MLflow: after each step ZenML's tracker resets both.
    return str(Client().active_stack.experiment_tracker.get_tracking_uri())


def settings_of(run: PipelineRunResponse) -> dict[str, object]:
    """Return the settings of every step of a pipeline run, defaults included, by section of the config."""
    parameters = {name: step.config.parameters for name, step in run.snapshot.step_configurations.items()}
    return {SECTIONS.get(name, name): each["settings"] for name, each in parameters.items() if "settings" in each}


def log_parameters(parameters: dict[str, object]) -> None:
    """Log the settings of every step to the active MLflow run, under flattened names such as train.epochs."""
    MlflowClient().log_batch(mlflow.active_run().info.run_id, params=[Param(key, value) for key, value in flatten(parameters).items()])

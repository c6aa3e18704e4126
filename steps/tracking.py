"""Into MLflow: as a step reports it, and again for a step that came from the cache."""

import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from deeprank.home import PROJECT
from deeprank.reporting import ATTACHED, Record
from steps.artifacts.base import RECORD, Artifact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = "deeprank"
SETTINGS = {"experiment_tracker": {"experiment_name": EXPERIMENT}}
FIGURES = "figures"
# ZenML's tracker complains after each step about every framework of MLflow's that is not installed.
logging.getLogger("zenml.integrations.mlflow.experiment_trackers.mlflow_experiment_tracker").setLevel(logging.ERROR)


class Tracked(Record):
    """A record that also goes into the active MLflow run while the step works."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / RECORD)

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Keep and log one number."""
        super().metric(name, value, step)
        mlflow.log_metric(name, value, step=step or 0)

    def note(self, name: str, value: str) -> None:
        """Keep a fact and log it as a tag."""
        super().note(name, value)
        mlflow.set_tag(name, value)

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep and log a picture."""
        super().figure(name, figure)
        mlflow.log_artifact(str(self.folder / f"{name}.png"), FIGURES)

    def attach(self, name: str, text: str) -> None:
        """Keep and log a file of text."""
        super().attach(name, text)
        mlflow.log_artifact(str(self.folder / ATTACHED / name))


def flatten(settings: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested settings with dotted names, as MLflow's parameters."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def git_commit() -> str:
    """Return the commit that the code is at, with -dirty where the working tree differs.

    Outside a checkout, or without git: the one that the image was built from, else `unknown`.
    """
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() if shutil.which("git") else ""
    return told or os.environ.get("DEEPRANK_COMMIT") or "unknown"


def track_cached_steps() -> None:
    """Log the records of this pipeline run's cached steps into its MLflow run, so that no run is empty in a comparison.

    The pipeline's clean-up hook; orchestrators that run it once a step repeat it harmlessly.
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
    """Log a saved record into an MLflow run."""
    client = MlflowClient()
    now = client.get_run(run_id).info.start_time
    metrics = [Metric(point.name, point.value, now, point.step or 0) for point in record.points]
    tags = [RunTag(name, value) for name, value in record.notes.items()]
    client.log_batch(run_id, metrics=metrics, tags=tags)
    for file in record.figures.values():
        client.log_artifact(run_id, str(file), FIGURES)
    for file in record.attached:
        client.log_artifact(run_id, str(file))


def registry_uri() -> str:
    """Return where releases are registered: what one registry has, another has not."""
    # Not as the environment or MLflow tells it: after each step ZenML's tracker sets both to nothing.
    return str(Client().active_stack.experiment_tracker.get_tracking_uri())


def settings_of(run: PipelineRunResponse) -> dict[str, object]:
    """Return every step's settings in a pipeline run, defaults included, by step."""
    return {name: one.config.parameters.get("settings", {}) for name, one in run.snapshot.step_configurations.items()}


def log_parameters(parameters: dict[str, object]) -> None:
    """Log every step's settings, defaults included, under flattened names such as train.epochs into the active MLflow run."""
    MlflowClient().log_batch(mlflow.active_run().info.run_id, params=[Param(key, value) for key, value in flatten(parameters).items()])

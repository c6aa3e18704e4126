"""A copy of the project, used through its commands, with a state folder of its own."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deeprank.data.synthetic import write_synthetic

PROJECT = Path(__file__).resolve().parents[2]
COPIED = ("pipelines", "steps", "deeprank", "configs", "pyproject.toml", "constraints.txt")
# Variables that point to the state folder of this process.
STATE_VARIABLES = ("DEEPRANK_", "ZENML_", "MLFLOW_")

# Prints the last run of the training pipeline: its steps, its MLflow run, and the registered versions after it.
LAST_RUN = """
import json
from mlflow import MlflowClient
from zenml.client import Client
from deeprank.registry.releases import list_versions
zenml_run = Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]
client = MlflowClient()
experiment = client.get_experiment_by_name("deeprank")
run = client.search_runs([experiment.experiment_id], f"tags.mlflow.runName = '{zenml_run.name}'")[0]
print(json.dumps({
    "steps": {name: step.status.value for name, step in zenml_run.steps.items()},
    "metrics": run.data.metrics,
    "params": run.data.params,
    "tags": run.data.tags,
    "figures": sorted(entry.path for entry in client.list_artifacts(run.info.run_id, "figures")),
    "curve": [point.value for point in client.get_metric_history(run.info.run_id, "train.loss")],
    "models": [vars(version) for version in list_versions("smoke")],
}))
"""
COUNT_RUNS = "import json; from zenml.client import Client; print(json.dumps(Client().list_pipeline_runs().total))"


@dataclass(frozen=True)
class ProjectCopy:
    """The copied project, and how to run commands in it."""

    folder: Path

    def _arguments(self, command: tuple[str, ...]) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(STATE_VARIABLES)}
        environment |= {"PYTHONPATH": str(self.folder), "COLUMNS": "200"}
        return {"args": [str(Path(sys.executable).with_name(command[0])), *command[1:]], "cwd": self.folder, "env": environment}

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(**self._arguments(command))

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(**self._arguments(command), capture_output=True, text=True, check=False)
        assert not check or result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
        return result

    def python(self, code: str, *arguments: str) -> Any:
        return json.loads(self.run("python", "-c", code, *arguments).stdout.splitlines()[-1])

    def pipeline(self, *settings: str, config: str = "configs/smoke.yaml") -> dict[str, Any]:
        """Run the training pipeline; return what `LAST_RUN` prints, and the log."""
        result = self.run("deeprank", "run", config, *(word for setting in settings for word in ("--set", setting)))
        return self.python(LAST_RUN) | {"log": result.stdout + result.stderr}

    def models(self) -> list[dict[str, Any]]:
        return json.loads(self.run("deeprank", "models", "--name", "smoke", "--json").stdout)


def copy_files(folder: Path) -> None:
    """Copy what a run needs of the project."""
    folder.mkdir(exist_ok=True)
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def copy_project(folder: Path) -> ProjectCopy:
    """Copy the project and set up its state folder."""
    copy_files(folder)
    project = ProjectCopy(folder)
    project.run("python", "-m", "pipelines.setup")
    return project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> ProjectCopy:
    """The project that several tests share; its runs are evaluated on images of another kind too."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    write_synthetic(project.folder / "other", classes=4, images=12, seed=7, size=96)
    config = project.folder / "configs" / "smoke.yaml"
    config.write_text(f"{config.read_text()}  evaluate: {{other: {project.folder / 'other'}}}\n")
    return project

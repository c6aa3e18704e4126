"""A copy of the project, used as its user would: through its commands, in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
COPIED = ("pipelines", "steps", "deeprank", "configs", "pyproject.toml", "constraints.txt")
# What the environment of this very process was given for the real project.
OURS = ("DEEPRANK_", "ZENML_", "MLFLOW_")

LAST_RUN = """
import json
from zenml.client import Client
run = Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]
print(json.dumps({"name": run.name, "steps": {name: step.status.value for name, step in run.steps.items()}}))
"""
MLFLOW_RUN = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient()
experiment = client.get_experiment_by_name("deeprank")
run = client.search_runs([experiment.experiment_id], f"tags.mlflow.runName = '{sys.argv[1]}'")[0]
figures = sorted(entry.path for entry in client.list_artifacts(run.info.run_id, "figures"))
curve = [point.value for point in client.get_metric_history(run.info.run_id, "train.loss")]
print(json.dumps({"metrics": run.data.metrics, "params": run.data.params, "tags": run.data.tags, "figures": figures, "curve": curve}))
"""


@dataclass(frozen=True)
class Copy:
    """The copied project and how to run things in it."""

    folder: Path

    def _prepared(self, command: tuple[str, ...]) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment |= {"PYTHONPATH": str(self.folder), "COLUMNS": "200"}
        return {"args": [str(Path(sys.executable).with_name(command[0])), *command[1:]], "cwd": self.folder, "env": environment}

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(**self._prepared(command))

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(**self._prepared(command), capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done

    def python(self, code: str, *arguments: str) -> Any:
        return json.loads(self.run("python", "-c", code, *arguments).stdout.splitlines()[-1])

    def pipeline(self, config: str = "configs/smoke.yaml") -> dict[str, Any]:
        """Run the pipeline as typed in the README; return its name and the status of each step."""
        self.run("zenml", "pipeline", "run", "pipelines.training", "-c", config)
        return self.python(LAST_RUN)

    def mlflow_run(self, name: str) -> dict[str, Any]:
        return self.python(MLFLOW_RUN, name)

    def models(self) -> list[dict[str, Any]]:
        return json.loads(self.run("deeprank", "models", "--name", "smoke", "--json").stdout)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    copy = Copy(folder)
    copy.run("python", "-m", "pipelines.setup")
    return copy

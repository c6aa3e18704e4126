"""The whole training with each step in a process of its own, an object store, and servers for ZenML and MLflow."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deeprank.data.synthetic import write_synthetic
from tests.e2e.conftest import STATE_VARIABLES, copy_files
from tests.e2e.servers import mlflow_server, zenml_server
from tests.object_store import ObjectStore, running_object_store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("pg_ctl") is None and not Path("/usr/lib/postgresql").is_dir(), reason="PostgreSQL is not installed"),
]
AWS_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
SET_UP = """
import json, sys
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
arguments = json.loads(sys.argv[1])
client = Client()
client.create_flavor(source="pods.PodOrchestratorFlavor", component_type=Kind.ORCHESTRATOR)
components = {
    Kind.ORCHESTRATOR: ("pods", {}),
    Kind.ARTIFACT_STORE: ("s3", {
        "path": arguments["path"], "key": "key", "secret": "secret",
        "client_kwargs": {"endpoint_url": arguments["endpoint"], "region_name": "us-east-1"},
    }),
    Kind.EXPERIMENT_TRACKER: ("mlflow", {"tracking_uri": arguments["mlflow"], "tracking_token": "none"}),
    Kind.MODEL_REGISTRY: ("mlflow", {}),
}
for kind, (flavor, configuration) in components.items():
    client.create_stack_component(name="pods", flavor=flavor, component_type=kind, configuration=configuration)
client.create_stack("pods", dict.fromkeys(components, "pods"))
client.activate_stack("pods")
"""
LAST_RUN = """
import json
from zenml.client import Client
run = Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]
print(json.dumps({"status": run.status.value, "steps": {name: step.status.value for name, step in run.steps.items()}}))
"""
VERSIONS = "import json; from deeprank.registry.releases import list_versions; print(json.dumps([vars(v) for v in list_versions('smoke')]))"


@dataclass(frozen=True)
class Cluster:
    """A copy of the project whose steps run as pods.

    Attributes:
        folder: of the copy.
        store: the object store.
        environment: of the commands that start runs.

    """

    folder: Path
    store: ObjectStore
    environment: dict[str, str]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in the project."""
        program = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
        result = subprocess.run(program, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        logs = "".join(f"\n== {log.name}\n{log.read_text()[-3000:]}" for log in sorted((self.folder / "logs").iterdir()))
        assert not check or result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:] + logs[-12000:]
        return result

    def python(self, code: str, *arguments: str) -> Any:
        """Run code that prints JSON in its last line."""
        return json.loads(self.run("python", "-c", code, *arguments).stdout.splitlines()[-1])

    def pipeline(self, name: str, config: str) -> dict[str, Any]:
        """Run a pipeline; return the status of the run and of its steps."""
        self.run("zenml", "pipeline", "run", f"pipelines.{name}", "-c", config)
        last: dict[str, Any] = self.python(LAST_RUN)
        return last


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with images in a folder that all pods mount."""
    folder = tmp_path_factory.mktemp("pods")
    copy_files(folder)
    shutil.copy(Path(__file__).with_name("pods.py"), folder / "pods.py")
    (folder / "logs").mkdir()
    write_synthetic(folder / "images", classes=12, images=16)
    smoke = yaml.safe_load((folder / "configs" / "smoke.yaml").read_text())
    smoke["parameters"]["register"]["promotion"]["floor"] = 0.1
    smoke["parameters"]["ingest"] = {"source": str(folder / "images"), "name": "shop"}
    (folder / "configs" / "pods.yaml").write_text(yaml.safe_dump(smoke))
    refresh = {"ingest": smoke["parameters"]["ingest"], "register": smoke["parameters"]["register"]}
    (folder / "configs" / "refresh-pods.yaml").write_text(yaml.safe_dump({"parameters": refresh}))
    due = {"retraining_due": {"min_new_images": 1000, "drift_alpha": 0}}
    (folder / "configs" / "retrain-pods.yaml").write_text(yaml.safe_dump({"parameters": smoke["parameters"] | due}))
    with running_object_store() as store, zenml_server(folder) as zenml:
        aws = AWS_KEYS | {"MLFLOW_S3_ENDPOINT_URL": store.endpoint}
        with mlflow_server(folder, f"{store.uri}/mlflow", aws) as mlflow:
            forwarded = {name: value for name, value in os.environ.items() if not name.startswith((*STATE_VARIABLES, "AWS_"))}
            environment = forwarded | {
                "PYTHONPATH": str(folder),
                "ZENML_STORE_URL": zenml,
                "ZENML_CONFIG_PATH": str(folder / "client"),
                "ZENML_CUSTOM_SOURCE_ROOT": str(folder),
                "ZENML_REPOSITORY_PATH": str(folder),
                "DEEPRANK_HOME": str(folder / "state"),
                "MLFLOW_TRACKING_URI": mlflow,
                "PODS_LOGS": str(folder / "logs"),
                "COLUMNS": "200",
            }
            cluster = Cluster(folder, store, environment)
            cluster.run("zenml", "init")
            arguments = {"path": f"{store.uri}/zenml", "endpoint": store.endpoint, "mlflow": mlflow}
            cluster.run("python", "-c", SET_UP, json.dumps(arguments))
            yield cluster


NEVER_CACHED = {"ingest", "drift", "ingest_other", "report", "service"}


def test_pods_train_refresh_and_retrain(cluster: Cluster) -> None:
    first = cluster.pipeline("training", "configs/pods.yaml")
    assert (first["status"], set(first["steps"].values())) == ("completed", {"completed"})
    (version,) = cluster.python(VERSIONS)
    assert version["aliases"] == "challenger, champion", version["gate_reason"]
    # Nothing of the catalogue is left on the machine of a pod.
    assert any(key.startswith("zenml/catalogues/shop-") for key in cluster.store.list_keys())
    assert not list((cluster.folder / "state").rglob("*.lance"))

    again = cluster.pipeline("training", "configs/pods.yaml")
    assert {name for name, status in again["steps"].items() if status != "cached"} == NEVER_CACHED
    assert len(cluster.python(VERSIONS)) == 1

    write_synthetic(cluster.folder / "more", classes=12, images=18)
    for file in (cluster.folder / "more").rglob("*.jpg"):
        target = cluster.folder / "images" / file.relative_to(cluster.folder / "more")
        if not target.exists():
            shutil.copy(file, target)
    refreshed = cluster.pipeline("refreshing", "configs/refresh-pods.yaml")
    assert set(refreshed["steps"].values()) == {"completed"}
    newest = cluster.python(VERSIONS)[0]
    assert (newest["version"], newest["aliases"], newest["gate_state"]) == (2, "champion", "refreshed")

    # What a schedule starts: no training is due, and there is nothing to refresh.
    retrained = cluster.pipeline("retraining", "configs/retrain-pods.yaml")
    assert retrained["status"] == "completed"
    assert len(cluster.python(VERSIONS)) == 2

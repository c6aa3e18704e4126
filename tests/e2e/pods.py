"""An orchestrator that runs each step in a process of its own with an empty home and folder, as Kubernetes runs a pod."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from zenml.config.base_settings import BaseSettings
from zenml.entrypoints import StepEntrypointConfiguration
from zenml.enums import ExecutionMode
from zenml.orchestrators import BaseOrchestrator, BaseOrchestratorConfig, BaseOrchestratorFlavor

RUN_ID = "PODS_RUN_ID"
# What a pod's image and its service account would give; no credentials of the object store.
FORWARDED = ("PATH", "PYTHONPATH", "LANG", "OMP_NUM_THREADS", "ZENML_STORE_URL", "ZENML_CUSTOM_SOURCE_ROOT", "PODS_LOGS")


class PodOrchestratorConfig(BaseOrchestratorConfig):
    """Its steps see no files of the machine that starts the run."""

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def is_schedulable(self) -> bool:
        return True


class PodOrchestrator(BaseOrchestrator):
    """Runs the steps one after another; each process loses its folders when it ends."""

    @property
    def settings_class(self) -> type[BaseSettings] | None:
        return None

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        return [ExecutionMode.CONTINUE_ON_FAILURE]

    def get_orchestrator_run_id(self) -> str:
        return os.environ[RUN_ID]

    def submit_pipeline(
        self, snapshot: Any, stack: Any, base_environment: Any, step_environments: Any, placeholder_run: Any = None
    ) -> None:
        """Run the steps; nothing of a scheduled pipeline."""
        if snapshot.schedule:
            return
        run_id, failed = str(uuid4()), set()
        for name, step in snapshot.step_configurations.items():
            if failed & set(step.spec.upstream_steps) or _run_pod(name, str(snapshot.id), step_environments[name] | {RUN_ID: run_id}):
                failed.add(name)
        if failed:
            raise RuntimeError(f"failed or not run: {', '.join(sorted(failed))}")


def _run_pod(name: str, snapshot_id: str, environment: dict[str, str]) -> int:
    home = Path(tempfile.mkdtemp(prefix=f"pod-{name}-"))
    variables = {key: os.environ[key] for key in FORWARDED if key in os.environ} | environment
    variables |= {"HOME": str(home), "DEEPRANK_HOME": str(home / "state"), "ZENML_CONFIG_PATH": str(home / "zenml"), "TMPDIR": str(home)}
    arguments = StepEntrypointConfiguration.get_entrypoint_arguments(step_name=name, snapshot_id=snapshot_id)
    log = Path(os.environ["PODS_LOGS"], f"{name}.log")
    with log.open("a") as stream:
        code = subprocess.run(
            [sys.executable, *StepEntrypointConfiguration.get_entrypoint_command()[1:], *arguments],
            env=variables,
            cwd=home,
            stdout=stream,
            stderr=stream,
            check=False,
        ).returncode
    shutil.rmtree(home, ignore_errors=True)
    return code


class PodOrchestratorFlavor(BaseOrchestratorFlavor):
    """Registered by the test as `pods`."""

    @property
    def name(self) -> str:
        return "pods"

    @property
    def config_class(self) -> type[PodOrchestratorConfig]:
        return PodOrchestratorConfig

    @property
    def implementation_class(self) -> type[PodOrchestrator]:
        return PodOrchestrator

"""ZenML's docker settings: the project's own Dockerfile, and a build context with all that it copies. Nothing is built."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from zenml.config.docker_settings import DockerSettings
from zenml.enums import ExecutionMode
from zenml.image_builders import BuildContext
from zenml.pipelines.pipeline_definition import Pipeline

from deeprank.home import PROJECT
from pipelines.refreshing import refreshing
from pipelines.retraining import retraining
from pipelines.strict import StrictPipeline
from pipelines.training import training
from steps.tracking import git_commit


def active_stack(monkeypatch: pytest.MonkeyPatch, flavor: str) -> None:
    tracker = SimpleNamespace(config=SimpleNamespace(tracking_uri=os.environ["MLFLOW_TRACKING_URI"]))
    stack = SimpleNamespace(
        orchestrator=SimpleNamespace(flavor=flavor, supported_execution_modes=list(ExecutionMode)),
        step_operator=None,
        experiment_tracker=tracker,
    )
    monkeypatch.setattr("pipelines.strict.Client", lambda: SimpleNamespace(active_stack=stack))


def docker_settings(pipeline: StrictPipeline) -> DockerSettings:
    return DockerSettings.model_validate(pipeline.configuration.settings["docker"].model_dump())


@pytest.mark.parametrize("pipeline", [training, retraining, refreshing], ids=lambda pipeline: pipeline.name)
def test_containers_have_the_image_of_the_dockerfile(pipeline: StrictPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    active_stack(monkeypatch, "kubernetes")
    settings = docker_settings(pipeline.with_options())
    dockerfile = Path(settings.dockerfile).read_text()
    assert Path(settings.dockerfile) == PROJECT / "docker" / "Dockerfile"
    assert f"AS {settings.parent_image_build_config.build_options.to_docker_python_sdk_options()['target']}\n" in dockerfile
    assert f"USER {settings.user}\n" in dockerfile
    assert f"WORKDIR {Path(settings.python_package_installer_args['constraint']).parent}\n" in dockerfile


def test_a_stack_without_containers_has_no_docker_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    active_stack(monkeypatch, "local")
    assert "docker" not in training.with_options().configuration.settings


def test_a_pipeline_without_options_has_the_image_too(monkeypatch: pytest.MonkeyPatch) -> None:
    active_stack(monkeypatch, "kubernetes")
    monkeypatch.setattr(Pipeline, "prepare", lambda *_, **__: None)
    pipeline = training.copy()
    pipeline.prepare()
    assert docker_settings(pipeline).user == "1000"
    assert "docker" not in training.configuration.settings


def test_the_image_has_the_commit_and_a_config_adds_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    active_stack(monkeypatch, "kubernetes")
    config = tmp_path / "gpu.yaml"
    config.write_text('settings: {docker: {parent_image_build_config: {build_options: {build_args: {TORCH_INDEX: ""}}}}}')
    options = docker_settings(training.with_options(config_path=str(config))).parent_image_build_config.build_options
    assert options.to_docker_python_sdk_options()["buildargs"] == {"COMMIT": git_commit(), "TORCH_INDEX": ""}
    dockerfile = (PROJECT / "docker" / "Dockerfile").read_text()
    assert all(f"ARG {name}" in dockerfile for name in options.build_args)


def test_the_build_context_holds_little_more_than_is_copied() -> None:
    files = BuildContext(root=str(PROJECT)).get_files()
    copied = {"pyproject.toml", "constraints.txt", "README.md", "deeprank/home.py", "steps/__init__.py", "docker/healthcheck.py"}
    assert copied <= set(files)
    assert not [name for name in files if re.search(r"^(\.|tests|benchmarks|docs)|\.pyc$|\.env$", name)]
    assert sum(Path(file).stat().st_size for file in files.values() if Path(file).is_file()) < 5e6

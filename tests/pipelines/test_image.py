"""ZenML builds the project's own Dockerfile, and all that it copies is in the build context; no daemon is here to build it."""

import re
from pathlib import Path

import pytest
from zenml.config.docker_settings import DockerSettings
from zenml.image_builders import BuildContext
from zenml.pipelines.pipeline_definition import Pipeline

from deeprank.home import PROJECT
from pipelines.refreshing import refreshing
from pipelines.retraining import retraining
from pipelines.strict import StrictPipeline
from pipelines.training import training
from steps.tracking import git_commit


@pytest.mark.parametrize("pipeline", [training, retraining, refreshing], ids=lambda pipeline: pipeline.name)
def test_every_pipeline_runs_in_the_image_of_the_dockerfile(pipeline: StrictPipeline) -> None:
    settings = DockerSettings.model_validate(pipeline.configuration.settings["docker"].model_dump())
    dockerfile = Path(settings.dockerfile).read_text()
    assert Path(settings.dockerfile) == PROJECT / "docker" / "Dockerfile"
    assert f"AS {settings.parent_image_build_config.build_options.to_docker_python_sdk_options()['target']}\n" in dockerfile
    assert f"USER {settings.user}\n" in dockerfile
    assert f"WORKDIR {Path(settings.python_package_installer_args['constraint']).parent}\n" in dockerfile


def test_the_image_is_told_the_commit_and_a_config_adds_to_that(tmp_path: Path) -> None:
    config = tmp_path / "gpu.yaml"
    config.write_text('settings: {docker: {parent_image_build_config: {build_options: {build_args: {TORCH_INDEX: ""}}}}}')
    configured = Pipeline.with_options(training, config_path=str(config)).configuration.settings["docker"]
    options = DockerSettings.model_validate(configured.model_dump()).parent_image_build_config.build_options
    assert options.to_docker_python_sdk_options()["buildargs"] == {"COMMIT": git_commit(), "TORCH_INDEX": ""}
    dockerfile = (PROJECT / "docker" / "Dockerfile").read_text()
    assert all(f"ARG {name}" in dockerfile for name in options.build_args)


def test_the_build_context_is_what_the_dockerfile_copies_and_little_more() -> None:
    files = BuildContext(root=str(PROJECT)).get_files()
    copied = {"pyproject.toml", "constraints.txt", "README.md", "deeprank/home.py", "steps/__init__.py", "docker/healthcheck.py"}
    assert copied <= set(files)
    assert not [name for name in files if re.search(r"^(\.|tests|benchmarks|docs)|\.pyc$|\.env$", name)]
    assert sum(Path(file).stat().st_size for file in files.values() if Path(file).is_file()) < 5e6

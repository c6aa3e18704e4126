"""The state folder, and the environment variables that point to it."""

import os
from pathlib import Path

import pytest

from deeprank.home import PROJECT, activate, default_tracking_uri, home

PREFIXES = ("DEEPRANK_", "ZENML_", "MLFLOW_")


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without the project's variables; what `activate` sets is removed again."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    for name in ("DEEPRANK_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "restored later")
        monkeypatch.delenv(name)
    yield monkeypatch
    for name in set(os.environ) - set(before):
        del os.environ[name]


def test_the_default_state_folder_is_in_the_project(clean_environment: pytest.MonkeyPatch) -> None:
    assert home() == PROJECT / ".deeprank"
    clean_environment.setenv("DEEPRANK_HOME", "")
    assert home() == PROJECT / ".deeprank"


def test_deeprank_home_moves_the_state_folder(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment.setenv("DEEPRANK_HOME", str(tmp_path / "s"))
    assert home() == tmp_path / "s"
    clean_environment.chdir(tmp_path)
    clean_environment.setenv("DEEPRANK_HOME", "relative")
    assert home() == tmp_path / "relative"


def test_activation_points_zenml_and_mlflow_to_the_state_folder(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment.setenv("DEEPRANK_HOME", str(tmp_path / "s"))
    activate()
    assert Path(os.environ["ZENML_CONFIG_PATH"]).is_relative_to(tmp_path / "s")
    assert os.environ["MLFLOW_TRACKING_URI"] == default_tracking_uri() == f"sqlite:///{tmp_path / 's' / 'mlflow' / 'mlflow.db'}"
    assert os.environ["ZENML_REPOSITORY_PATH"] == str(tmp_path / "s")
    assert os.environ["ZENML_CUSTOM_SOURCE_ROOT"] == str(PROJECT)
    assert os.environ["ZENML_ANALYTICS_OPT_IN"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not (tmp_path / "s").exists()


def test_activation_overrides_no_variable(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = {"MLFLOW_TRACKING_URI": "http://server:5000", "ZENML_CONFIG_PATH": "/elsewhere", "ZENML_ANALYTICS_OPT_IN": "true"}
    clean_environment.setenv("DEEPRANK_HOME", str(tmp_path / "s"))
    for name, value in variables.items():
        clean_environment.setenv(name, value)
    activate()
    assert {name: os.environ[name] for name in variables} == variables


def test_activating_twice_changes_nothing(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment.setenv("DEEPRANK_HOME", str(tmp_path / "s"))
    activate()
    first = dict(os.environ)
    activate()
    assert dict(os.environ) == first

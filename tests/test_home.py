"""Everything the project writes lies in one folder that the environment may move."""

import os
from pathlib import Path

import pytest

from deeprank.home import PROJECT, activate, default_tracking_uri, home

NAMES = ("DEEPRANK_", "ZENML_", "MLFLOW_")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing yet; what `activate` sets is taken back."""
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(NAMES):
            monkeypatch.delenv(name)
    for name in ("DEEPRANK_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "later taken back")
        monkeypatch.delenv(name)
    yield monkeypatch
    for name in set(os.environ) - set(kept):
        del os.environ[name]


def test_by_default_the_state_folder_lies_in_the_project(clean: pytest.MonkeyPatch) -> None:
    assert home() == PROJECT / ".deeprank"
    clean.setenv("DEEPRANK_HOME", "")
    assert home() == PROJECT / ".deeprank"


def test_the_environment_moves_it_and_a_relative_path_is_from_here(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("DEEPRANK_HOME", str(tmp_path / "s"))
    assert home() == tmp_path / "s"
    clean.chdir(tmp_path)
    clean.setenv("DEEPRANK_HOME", "here")
    assert home() == tmp_path / "here"


def test_activation_points_zenml_and_mlflow_into_the_state_folder(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("DEEPRANK_HOME", str(tmp_path / "s"))
    activate()
    assert Path(os.environ["ZENML_CONFIG_PATH"]).is_relative_to(tmp_path / "s")
    assert os.environ["MLFLOW_TRACKING_URI"] == default_tracking_uri() == f"sqlite:///{tmp_path / 's' / 'mlflow' / 'mlflow.db'}"
    assert os.environ["ZENML_REPOSITORY_PATH"] == str(tmp_path / "s")
    assert os.environ["ZENML_CUSTOM_SOURCE_ROOT"] == str(PROJECT)
    assert os.environ["ZENML_ANALYTICS_OPT_IN"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not (tmp_path / "s").exists()


def test_activation_overrides_nothing(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"MLFLOW_TRACKING_URI": "http://server:5000", "ZENML_CONFIG_PATH": "/elsewhere", "ZENML_ANALYTICS_OPT_IN": "true"}
    clean.setenv("DEEPRANK_HOME", str(tmp_path / "s"))
    for name, value in given.items():
        clean.setenv(name, value)
    activate()
    assert {name: os.environ[name] for name in given} == given


def test_activating_twice_changes_nothing(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("DEEPRANK_HOME", str(tmp_path / "s"))
    activate()
    first = dict(os.environ)
    activate()
    assert dict(os.environ) == first

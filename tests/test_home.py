"""The state folder, and the environment variables that point to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deeprank.errors import ConfigError
from deeprank.home import PROJECT, activate, default_tracking_uri, home, record_location, require_in_place

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


@pytest.fixture
def moved(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """The old and the new path of a state folder that was moved."""
    old, new = tmp_path / "old", tmp_path / "new [1]"
    old.mkdir()
    clean_environment.setenv("DEEPRANK_HOME", str(old))
    record_location()
    require_in_place()
    old.rename(new)
    clean_environment.setenv("DEEPRANK_HOME", str(new))
    return old, new


def test_a_moved_state_folder_is_refused_in_one_line(moved: tuple[Path, Path]) -> None:
    old, new = moved
    with pytest.raises(ConfigError) as error:
        require_in_place()
    message = str(error.value)
    assert message.startswith(f"the state folder {new} was at {old}, ")
    assert f"move it back, or link it: `ln -s '{new}' {old}`" in message
    assert "\n" not in message


def test_a_linked_state_folder_keeps_its_old_path(moved: tuple[Path, Path]) -> None:
    old, new = moved
    old.symlink_to(new)
    require_in_place()
    assert home() == old


def test_a_copied_state_folder_names_the_original(moved: tuple[Path, Path]) -> None:
    old, _ = moved
    old.mkdir()
    with pytest.raises(ConfigError, match=f"files: use {old}; a new folder in DEEPRANK_HOME is a clean start"):
        require_in_place()


@pytest.mark.parametrize(
    "command",
    [("zenml", "pipeline", "run", "pipelines.training"), ("python", "-m", "pipelines.setup"), ("deeprank", "models")],
    ids=lambda command: command[0],
)
def test_nothing_is_written_where_a_state_folder_was(moved: tuple[Path, Path], command: tuple[str, ...]) -> None:
    old, new = moved
    zenml = new / "zenml"
    zenml.mkdir()
    database = f"{old}/zenml/local_stores/default_zen_store/zenml.db"
    (zenml / "config.yaml").write_text(f"store: {{type: sql, url: 'sqlite:///{database}', database: {database}, driver: sqlite}}\n")
    activate()
    program = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
    result = subprocess.run(program, cwd=PROJECT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: the state folder {new} was at {old}, ")
    assert "Traceback" not in result.stdout + result.stderr
    assert not old.exists()

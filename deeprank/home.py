"""The state folder: the project writes nowhere else, and without it everything starts anew."""

import os
import shlex
import site
from pathlib import Path

from deeprank.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent
# Holds the path that the state folder had at its setup: its databases have absolute paths below it.
LOCATION = "location.txt"


def home() -> Path:
    """Return the state folder: `DEEPRANK_HOME`, or `.deeprank` in the checkout, or else `.deeprank` in the working directory.

    A folder that was moved, with a link to it at its old place, keeps its old path.
    """
    base = PROJECT if (PROJECT / "pyproject.toml").exists() else Path.cwd()
    folder = Path(os.environ.get("DEEPRANK_HOME") or base / ".deeprank").resolve()
    location = _location(folder)
    return location if _is_same(location, folder) else folder


def _is_same(location: Path, folder: Path) -> bool:
    """Return whether two paths lead to the same folder, by a link, a mount or another case."""
    return location.exists() and location.samefile(folder)


def _location(folder: Path) -> Path:
    """Return the path that a state folder had at its setup."""
    file = folder / LOCATION
    return Path(os.fsdecode(file.read_bytes())) if file.is_file() else folder


def record_location() -> None:
    """Write the path of a new state folder into it."""
    file = home() / LOCATION
    if not file.exists():
        file.write_bytes(os.fsencode(home()))


def is_in_place() -> bool:
    """Return whether the state folder is where it was set up."""
    return _location(home()) == home()


def require_in_place() -> None:
    """Refuse a state folder that was moved or copied: its databases name files at the old place.

    Raises:
        ConfigError: says how to use it.

    """
    state, old = home(), _location(home())
    if state != old:
        remedy = f"use {old}" if old.exists() else f"move it back, or link it: `ln -s {shlex.quote(str(state))} {shlex.quote(str(old))}`"
        raise ConfigError(
            f"the state folder {state} was at {old}, where its databases look for its files: {remedy}; "
            "a new folder in DEEPRANK_HOME is a clean start"
        )


def default_tracking_uri() -> str:
    """Return the MLflow store if `MLFLOW_TRACKING_URI` is not set: SQLite in the state folder."""
    return f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}"


def activate() -> None:
    """Set the environment variables that point ZenML and MLflow to the state folder; variables that are set stay."""
    state = home()
    zenml = state / "zenml"
    defaults = {
        "DEEPRANK_HOME": str(state),
        "ZENML_CONFIG_PATH": str(zenml),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_AUTO_OPEN_DASHBOARD": "false",
        "ZENML_LOGGING_VERBOSITY": "INFO",
        # CUDA reads it at the first matrix product, which may come before the training that needs deterministic results.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "MLFLOW_TRACKING_URI": default_tracking_uri(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }
    if (PROJECT / "pyproject.toml").exists():
        # The state folder holds ZenML's repository marker; sources and cache dependencies are relative to the project.
        defaults |= {"ZENML_REPOSITORY_PATH": str(state), "ZENML_CUSTOM_SOURCE_ROOT": str(PROJECT)}
    if not is_in_place():
        # ZenML's configuration has the old path of its database, and ZenML would create that again before anything is refused.
        defaults["ZENML_STORE_URL"] = f"sqlite:///{zenml / 'local_stores' / 'default_zen_store' / 'zenml.db'}"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def install() -> None:
    """Make every Python process of this environment call `activate` when it starts, by a .pth file in site-packages."""
    Path(site.getsitepackages()[0], "deeprank-state.pth").write_text("import deeprank.home; deeprank.home.activate()\n")


if __name__ == "__main__":
    install()

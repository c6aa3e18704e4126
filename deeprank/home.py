"""The state folder: everything the project writes lives under it, and removing it is a clean start."""

import os
import site
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the state folder: `DEEPRANK_HOME`, else `.deeprank` in the project (or, installed without it, here)."""
    base = PROJECT if (PROJECT / "pyproject.toml").exists() else Path.cwd()
    return Path(os.environ.get("DEEPRANK_HOME") or base / ".deeprank").resolve()


def default_tracking_uri() -> str:
    """Return the MLflow store used when `MLFLOW_TRACKING_URI` is not set: SQLite under the state folder."""
    return f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}"


def activate() -> None:
    """Point ZenML and MLflow at the state folder; `make setup` has every Python of the environment call this at start."""
    state = home()
    zenml = state / "zenml"
    defaults = {
        "DEEPRANK_HOME": str(state),
        "ZENML_CONFIG_PATH": str(zenml),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_AUTO_OPEN_DASHBOARD": "false",
        "ZENML_LOGGING_VERBOSITY": "INFO",
        # Read once, at the first matrix product on a GPU, which may come before the training that asks for deterministic ones.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "MLFLOW_TRACKING_URI": default_tracking_uri(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }
    if (PROJECT / "pyproject.toml").exists():
        # ZenML looks for its repository marker here; sources and cache dependencies are relative to the project.
        defaults |= {"ZENML_REPOSITORY_PATH": str(state), "ZENML_CUSTOM_SOURCE_ROOT": str(PROJECT)}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def install() -> None:
    """Have every Python of this environment call `activate` at start, however it is started: shell, cron, make."""
    Path(site.getsitepackages()[0], "deeprank-state.pth").write_text("import deeprank.home; deeprank.home.activate()\n")


if __name__ == "__main__":
    install()

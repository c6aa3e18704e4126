"""The state folder: the project writes nowhere else, and without it everything starts anew."""

import os
import site
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the state folder: `DEEPRANK_HOME`, or `.deeprank` in the checkout, or else `.deeprank` in the working directory."""
    base = PROJECT if (PROJECT / "pyproject.toml").exists() else Path.cwd()
    return Path(os.environ.get("DEEPRANK_HOME") or base / ".deeprank").resolve()


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
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def install() -> None:
    """Make every Python process of this environment call `activate` when it starts, by a .pth file in site-packages."""
    Path(site.getsitepackages()[0], "deeprank-state.pth").write_text("import deeprank.home; deeprank.home.activate()\n")


if __name__ == "__main__":
    install()

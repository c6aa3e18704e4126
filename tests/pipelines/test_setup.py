"""The stack's tracker uses MLFLOW_TRACKING_URI, also for a server, with the credentials of the environment."""

import pytest
from zenml.integrations.mlflow.flavors.mlflow_experiment_tracker_flavor import MLFlowExperimentTrackerConfig

from pipelines.setup import tracker_configuration

SERVER = "http://mlflow:5000"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"URI": "sqlite:///mlflow.db"}, (None, None)),
        ({"URI": SERVER}, (None, "none")),
        ({"URI": SERVER, "TOKEN": "t"}, (None, "t")),
        ({"URI": SERVER, "USERNAME": "u", "PASSWORD": "p"}, ("u", None)),
    ],
)
def test_zenml_accepts_the_tracker_configuration(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    config = MLFlowExperimentTrackerConfig.model_validate(tracker_configuration())
    assert (config.tracking_username, config.tracking_token) == expected
    assert config.tracking_uri == environment["URI"]

"""A step's report is logged to MLflow while it runs, or later from its record."""

import re
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from deeprank.home import PROJECT
from deeprank.reporting import Record
from steps.tracking import MlflowReporter, flatten, git_commit, log_parameters, replay


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        yield mlflow.create_experiment("tests", (folder / "artifacts").as_uri())


def _logged(run_id: str) -> tuple[dict[str, list[tuple[int, float]]], dict[str, str], list[str]]:
    client = MlflowClient()
    data = client.get_run(run_id).data
    curves = {name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name)) for name in data.metrics}
    tags = {name: value for name, value in data.tags.items() if not name.startswith("mlflow.")}
    return curves, tags, [file.path for file in client.list_artifacts(run_id, "figures")]


def test_a_replayed_record_logs_what_the_step_logged(experiment: str, tmp_path: Path) -> None:
    with mlflow.start_run(experiment_id=experiment) as first:
        reporter = MlflowReporter(tmp_path / "record")
        for epoch, loss in enumerate((2.0, 1.0), start=1):
            reporter.metric("train.loss", loss, epoch)
        reporter.metric("queries", 12)
        reporter.note("model.weights_hash", "abc")
        reporter.figure("curves", Figure())
        reporter.save()
    with mlflow.start_run(experiment_id=experiment) as second:
        pass
    replay(Record.load(tmp_path / "record"), second.info.run_id)
    curves = {"train.loss": [(1, 2.0), (2, 1.0)], "queries": [(0, 12.0)]}
    assert _logged(first.info.run_id) == (curves, {"model.weights_hash": "abc"}, ["figures/curves.png"])
    assert _logged(second.info.run_id) == _logged(first.info.run_id)


def test_nested_parameters_have_dotted_names(experiment: str) -> None:
    settings = {"train": {"epochs": 3, "model": {"weights": "none"}}, "plain": 1.5, "nothing": None, "many": [1, 2]}
    flat = {"train.epochs": "3", "train.model.weights": "none", "plain": "1.5", "nothing": "None", "many": "[1, 2]"}
    assert flatten(settings) == flat
    with mlflow.start_run(experiment_id=experiment) as run:
        log_parameters(settings)
    assert MlflowClient().get_run(run.info.run_id).data.params == flat


def test_the_commit_is_of_the_checkout_or_the_image_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    if (PROJECT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", git_commit())
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("DEEPRANK_COMMIT", "of the image")
    assert git_commit() == "of the image"
    monkeypatch.delenv("DEEPRANK_COMMIT")
    assert git_commit() == "unknown"

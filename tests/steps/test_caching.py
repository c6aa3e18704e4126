"""A step's cache key holds the files it reaches and no others."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from zenml.utils import source_utils

from deeprank.home import PROJECT
from deeprank.registry.register import RELEASE_CODE
from steps.caching import cache_on_sources, reached_sources
from steps.register import register_step

CACHED = ["leakage", "sample_triplets", "train", "evaluate", "cluster", "index", "register"]


def _reached(step: str) -> set[str]:
    return {file.relative_to(PROJECT).as_posix() for file in reached_sources(PROJECT / "steps" / f"{step}.py")}


def test_training_reaches_its_own_room_and_those_it_uses() -> None:
    assert {
        "steps/train.py",
        "steps/tracking.py",
        "deeprank/__init__.py",
        "deeprank/training/__init__.py",
        "deeprank/training/fit.py",
        "deeprank/training/losses.py",
        "deeprank/models/embedding_model.py",
        "deeprank/data/catalogue.py",
        "deeprank/plotting/evaluation.py",
    } <= _reached("train")


@pytest.mark.parametrize(
    ("step", "file"),
    [
        ("sample_triplets", "deeprank/triplets/sampling.py"),
        ("train", "deeprank/training/augmentation.py"),
        ("evaluate", "deeprank/evaluation/metrics.py"),
        ("evaluate", "deeprank/models/preprocessing.py"),
        ("cluster", "deeprank/search/clusters.py"),
        ("cluster", "deeprank/search/clusters.html.j2"),
        ("index", "deeprank/search/autotune.py"),
        ("register", "deeprank/evaluation/gate.py"),
        ("register", "deeprank/evaluation/card.md.j2"),
        ("leakage", "deeprank/evaluation/leakage.py"),
    ],
)
def test_a_step_reaches_what_decides_its_result(step: str, file: str) -> None:
    assert file in _reached(step)


@pytest.mark.parametrize("step", ["leakage", "sample_triplets", "evaluate", "cluster", "register"])
def test_only_training_reaches_the_training_room(step: str) -> None:
    assert not [file for file in _reached(step) if file.startswith("deeprank/training/")]


@pytest.mark.parametrize("step", CACHED)
def test_every_cached_step_misses_when_a_file_it_reaches_or_the_lock_file_changes(step: str) -> None:
    policy = getattr(importlib.import_module(f"steps.{step}"), f"{step}_step").configuration.cache_policy
    # register logs the release's code by its path, not by an import.
    logged = {str(file.relative_to(PROJECT)) for file in reached_sources(RELEASE_CODE)} if step == "register" else set()
    assert set(policy.file_dependencies) == _reached(step) | logged | {"constraints.txt"}
    assert f"steps/{step}.py" in policy.file_dependencies
    assert all((PROJECT / file).is_file() for file in policy.file_dependencies)


def test_what_one_registry_has_another_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told = source_utils.load(register_step.configuration.cache_policy.cache_func)
    found = set()
    # As ZenML's tracker leaves it after each step.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    for uri in ("sqlite:///a.db", "sqlite:///a.db", "http://127.0.0.1:5000"):
        tracker = SimpleNamespace(get_tracking_uri=lambda uri=uri: uri)
        stack = SimpleNamespace(active_stack=SimpleNamespace(experiment_tracker=tracker))
        monkeypatch.setattr("steps.tracking.Client", lambda stack=stack: stack)
        found.add(told())
    assert len(found) == 2


@pytest.mark.parametrize("step", ["ingest", "drift", "report"])
def test_what_looks_at_the_world_or_at_this_run_is_never_cached(step: str) -> None:
    assert getattr(importlib.import_module(f"steps.{step}"), f"{step}_step").configuration.enable_cache is False


def test_the_policy_is_the_same_every_time() -> None:
    file = str(PROJECT / "steps" / "train.py")
    assert cache_on_sources(file).file_dependencies == cache_on_sources(file).file_dependencies


def test_imports_in_functions_and_under_conditions_count_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy, deeprank.settings\n"
        "from deeprank.data import splits\n"
        "if True:\n    from deeprank.errors import DataError as Wrong\n"
        "def late():\n    import steps.tracking as tracking\n"
    )
    reached = reached_sources(script)
    names = ["deeprank/settings.py", "deeprank/data/splits.py", "deeprank/data/__init__.py", "deeprank/errors.py", "steps/tracking.py"]
    assert {script, *(PROJECT / name for name in names)} <= reached
    assert all(file == script or file.is_relative_to(PROJECT) for file in reached)

"""A step's cache key holds the files that it reaches, and no others."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from zenml.utils import source_utils

from deeprank.home import PROJECT
from deeprank.registry.register import RELEASE_CODE
from steps.caching import cache_on_sources, reached_sources
from steps.register import register_step

CACHED_STEPS = ["leakage", "sample_triplets", "train", "evaluate", "cluster", "index", "register"]


def _reached(step: str) -> set[str]:
    return {file.relative_to(PROJECT).as_posix() for file in reached_sources(PROJECT / "steps" / f"{step}.py")}


def test_training_reaches_its_package_and_those_it_imports() -> None:
    assert {
        "steps/train.py",
        "steps/tracking.py",
        "deeprank/__init__.py",
        "deeprank/training/__init__.py",
        "deeprank/training/fit.py",
        "deeprank/training/losses.py",
        "deeprank/models/embedding_model.py",
        "deeprank/data/catalogue.py",
        "deeprank/plotting/style.py",
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
        ("evaluate", "deeprank/evaluation/other_kind.py"),
        ("register", "deeprank/evaluation/gate.py"),
        ("register", "deeprank/evaluation/other_kind.py"),
        ("register", "deeprank/report/model_card.md.j2"),
        ("leakage", "deeprank/evaluation/leakage.py"),
    ],
)
def test_a_step_reaches_the_files_that_its_result_depends_on(step: str, file: str) -> None:
    assert file in _reached(step)


@pytest.mark.parametrize("step", ["leakage", "sample_triplets", "evaluate", "cluster", "register"])
def test_other_steps_do_not_reach_the_training_package(step: str) -> None:
    assert not [file for file in _reached(step) if file.startswith("deeprank/training/")]


@pytest.mark.parametrize("step", CACHED_STEPS)
def test_the_cache_key_holds_reached_files_and_the_lock_file(step: str) -> None:
    policy = getattr(importlib.import_module(f"steps.{step}"), f"{step}_step").configuration.cache_policy
    # The release's code is logged by its path, not imported.
    logged = {str(file.relative_to(PROJECT)) for file in reached_sources(RELEASE_CODE)} if step == "register" else set()
    assert set(policy.file_dependencies) == _reached(step) | logged | {"constraints.txt"}
    assert f"steps/{step}.py" in policy.file_dependencies
    assert all((PROJECT / file).is_file() for file in policy.file_dependencies)


def test_registering_is_cached_per_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    cache_func = source_utils.load(register_step.configuration.cache_policy.cache_func)
    values = set()
    # ZenML's tracker resets the variable after each step.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    for uri in ("sqlite:///a.db", "sqlite:///a.db", "http://127.0.0.1:5000"):
        tracker = SimpleNamespace(get_tracking_uri=lambda uri=uri: uri)
        stack = SimpleNamespace(active_stack=SimpleNamespace(experiment_tracker=tracker))
        monkeypatch.setattr("steps.tracking.Client", lambda stack=stack: stack)
        values.add(cache_func())
    assert len(values) == 2


@pytest.mark.parametrize("step", ["ingest", "ingest_other", "champion", "drift", "retraining_due", "refresh", "report", "service"])
def test_steps_that_depend_on_the_outside_are_never_cached(step: str) -> None:
    assert getattr(importlib.import_module(f"steps.{step}"), f"{step}_step").configuration.enable_cache is False


def test_the_cache_policy_is_deterministic() -> None:
    file = str(PROJECT / "steps" / "train.py")
    assert cache_on_sources(file).file_dependencies == cache_on_sources(file).file_dependencies


def test_imports_in_functions_and_conditions_count(tmp_path: Path) -> None:
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


def test_training_does_not_reach_search_or_metrics() -> None:
    assert not [file for file in _reached("train") if file.startswith("deeprank/search/") or file == "deeprank/evaluation/metrics.py"]


def test_sampling_does_not_reach_models_or_search() -> None:
    assert not [file for file in _reached("sample_triplets") if file.startswith(("deeprank/search/", "deeprank/models/"))]

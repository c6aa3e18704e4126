"""The main job, through `zenml pipeline run`, on rendered images. The tests build on each other, in order."""

import json
from pathlib import Path
from typing import Any

import pytest

from deeprank.data.synthetic import render
from tests.e2e.conftest import LAST_RUN, Copy

STEPS = {"ingest", "leakage", "drift", "sample_triplets", "train", "evaluate", "cluster", "index", "register", "report", "service"}
# What looks at the world, or tells of this very run.
ALWAYS = dict.fromkeys(("ingest", "drift", "report", "service"), "completed")
CACHED = dict.fromkeys(STEPS, "cached") | ALWAYS
FIGURES = {"images", "triplet_grid", "curves", "neighbor_gallery", "recall_curve", "confusion", "per_class", "embedding_map"}
FIGURES |= {"cluster_choice", "cluster_tree", "cluster_map", "cluster_montage", "index_choice", "explained"}


@pytest.fixture(scope="session")
def first(project: Copy) -> dict[str, Any]:
    return project.pipeline()


@pytest.fixture(scope="session")
def images(project: Copy, first: dict[str, Any]) -> Path:
    return Path(project.mlflow_run(first["name"])["tags"]["catalogue.source"])


def test_a_first_run_runs_every_step(first: dict[str, Any]) -> None:
    assert first["steps"] == dict.fromkeys(STEPS, "completed")


def test_its_mlflow_run_holds_parameters_curves_metrics_versions_and_pictures(project: Copy, first: dict[str, Any]) -> None:
    run = project.mlflow_run(first["name"])
    metrics = run["metrics"]
    assert run["params"]["train.epochs"] == "2"
    assert run["params"]["ingest.synthetic.classes"] == "12"
    assert run["params"]["train.augment.flip"] == "0.5"
    assert len(run["curve"]) == 2
    assert metrics["data.files.ok"] + metrics["data.files.duplicate"] + metrics["data.files.rejected"] == metrics["data.files.found"] == 192
    assert 0 <= metrics["fine.recall_at_1.low"] <= metrics["fine.recall_at_1"] <= metrics["fine.recall_at_1.high"] <= 1
    assert {"baseline.fine.recall_at_1", "triplet_accuracy", "clusters.purity"} <= metrics.keys()
    assert {"catalogue.version", "catalogue.fingerprint", "git.commit", "model.weights", "release.version"} <= run["tags"].keys()
    assert {Path(figure).stem for figure in run["figures"]} == FIGURES


def test_it_registers_one_version_as_challenger(project: Copy, first: dict[str, Any]) -> None:
    (version,) = project.models()
    assert version["version"] == 1
    assert "challenger" in version["aliases"]
    assert version["gate"] == "no-champion"
    assert version["reason"].startswith("no champion yet: recall@1")


def test_search_finds_a_image_of_the_catalogue_first_at_distance_0(project: Copy, images: Path) -> None:
    image = next(images.rglob("000.jpg"))
    found = project.run("deeprank", "search", "--model", "models:/smoke/1", str(image), "-k", "3", "--json")
    neighbors = json.loads(found.stdout)["neighbors"]
    assert len(neighbors) == 3
    assert images / neighbors[0]["path"] == image
    assert neighbors[0]["distance"] == pytest.approx(0, abs=1e-5)


def test_search_and_distance_agree(project: Copy, images: Path) -> None:
    image = next(images.rglob("001.jpg"))
    found = project.run("deeprank", "search", "--model", "models:/smoke@challenger", str(image), "-k", "4", "--json")
    last = json.loads(found.stdout)["neighbors"][-1]
    told = project.run("deeprank", "distance", "-m", "models:/smoke/1", "-i1", str(image), "-i2", str(images / last["path"]), "--json")
    assert json.loads(told.stdout)["distance"] == pytest.approx(last["distance"], abs=1e-5)


def test_evaluate_prints_the_names_that_mlflow_has(project: Copy, images: Path) -> None:
    told = project.run("deeprank", "evaluate", "--model", "models:/smoke/1", "--queries", str(images), "--gallery", str(images), "--json")
    result = json.loads(told.stdout)
    # Each image finds itself.
    assert result["fine"]["recall_at_1"] == 1
    assert set(result["fine"]) == set(result["coarse"]) == {"recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"}
    assert 0 < result["triplet_accuracy"] <= 1


def test_a_second_run_takes_what_it_can_from_the_cache_and_registers_nothing(project: Copy, first: dict[str, Any]) -> None:
    second = project.pipeline()
    assert second["steps"] == CACHED
    assert len(project.models()) == 1
    before, after = project.mlflow_run(first["name"]), project.mlflow_run(second["name"])
    # What ingest read is news; all else is as full and the same as in the first run.
    assert {**after["metrics"], "data.files.read": 192} == before["metrics"]
    assert after["metrics"]["data.files.read"] == 0
    assert (after["figures"], after["curve"], after["params"]) == (before["figures"], before["curve"], before["params"])


def test_a_changed_line_in_training_runs_training_and_what_its_result_changes(project: Copy, first: dict[str, Any]) -> None:
    source = project.folder / "deeprank" / "training" / "fit.py"
    text = source.read_text()
    source.write_text(text + "\n# The same weights come out.\n")
    assert project.pipeline()["steps"] == CACHED | {"train": "completed"}
    changed = text.replace('"weight_decay": settings.weight_decay', '"weight_decay": 2 * settings.weight_decay')
    assert changed != text
    source.write_text(changed)
    assert project.pipeline()["steps"] == dict.fromkeys(STEPS, "completed") | {"leakage": "cached", "sample_triplets": "cached"}
    assert len(project.models()) == 2
    source.write_text(text)


def test_a_new_image_runs_every_step_and_leaves_the_old_version_readable(project: Copy, images: Path) -> None:
    folder = next(images.rglob("000.jpg")).parent
    render(0, 99).save(folder / "new image.JPG", quality=90)
    run = project.pipeline()
    assert run["steps"] == dict.fromkeys(STEPS, "completed")
    tracked = project.mlflow_run(run["name"])
    assert (tracked["tags"]["catalogue.version"], tracked["metrics"]["data.files.read"]) == ("2", 1)
    old = project.run("deeprank", "run", "configs/smoke.yaml", "--set", "ingest.version=1")
    assert old.returncode == 0
    # The first catalogue and the first code again: nothing is left to compute.
    assert project.python(LAST_RUN)["steps"] == CACHED


def test_a_misspelt_key_ends_a_run_before_it_starts(project: Copy, first: dict[str, Any]) -> None:
    config = project.folder / "misspelt.yaml"
    config.write_text("parameters:\n  train:\n    epocs: 3\n")
    count = "import json; from zenml.client import Client; print(json.dumps(Client().list_pipeline_runs().total))"
    before = project.python(count)
    done = project.run("zenml", "pipeline", "run", "pipelines.training", "-c", str(config), check=False)
    assert done.returncode != 0
    assert "unknown key parameters.train.epocs; did you mean epochs?" in done.stdout + done.stderr
    assert project.python(count) == before


def test_a_missing_folder_ends_a_run_with_its_name(project: Copy) -> None:
    done = project.run("deeprank", "run", "configs/smoke.yaml", "--set", "ingest.source=/no/such/folder", check=False)
    assert done.returncode != 0
    assert "/no/such/folder does not exist" in done.stdout + done.stderr

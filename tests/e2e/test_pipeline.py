"""The training pipeline through its commands, on synthetic images.

All tests share one project and its first run. Each of them may run alone and in any order: a test that changes a file restores it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deeprank.data.synthetic import draw_image
from tests.e2e.conftest import COUNT_RUNS, ProjectCopy

STEPS = {"ingest", "leakage", "drift", "sample_triplets", "train", "embed", "ingest_other", "evaluate", "cluster", "index", "register"}
STEPS |= {"report", "service"}
# Steps that are never cached.
ALWAYS = dict.fromkeys(("ingest", "drift", "ingest_other", "report", "service"), "completed")
CACHED = dict.fromkeys(STEPS, "cached") | ALWAYS
FIGURES = {"images", "triplet_grid", "curves", "neighbor_gallery", "recall_curve", "confusion", "per_class", "embedding_map"}
FIGURES |= {"cluster_silhouettes", "cluster_tree", "cluster_map", "cluster_montage", "index_autotune", "explained"}


@pytest.fixture(scope="session")
def first(project: ProjectCopy) -> dict[str, Any]:
    """The first run."""
    return project.pipeline()


@pytest.fixture(scope="session")
def images(first: dict[str, Any]) -> Path:
    """The folder that the first run ingested."""
    return Path(first["tags"]["catalogue.source"])


def test_a_first_run_completes_every_step(first: dict[str, Any]) -> None:
    assert first["steps"] == dict.fromkeys(STEPS, "completed")


def test_a_local_run_has_no_docker_settings(first: dict[str, Any]) -> None:
    assert "docker settings" not in first["log"]


def test_the_mlflow_run_holds_params_metrics_tags_and_figures(first: dict[str, Any]) -> None:
    metrics = first["metrics"]
    assert first["params"]["train.epochs"] == "2"
    assert first["params"]["ingest.synthetic.classes"] == "12"
    assert first["params"]["train.augment.flip"] == "0.5"
    assert len(first["curve"]) == 2
    assert metrics["data.files.ok"] + metrics["data.files.duplicate"] + metrics["data.files.rejected"] == metrics["data.files.total"] == 192
    assert 0 <= metrics["fine.recall_at_1.low"] <= metrics["fine.recall_at_1"] <= metrics["fine.recall_at_1.high"] <= 1
    assert {"baseline.fine.recall_at_1", "triplet_accuracy", "clusters.purity"} <= metrics.keys()
    assert {"catalogue.version", "catalogue.fingerprint", "git.commit", "model.weights_hash", "release.version"} <= first["tags"].keys()
    assert {Path(figure).stem for figure in first["figures"]} == FIGURES


def test_a_run_is_evaluated_on_images_of_another_kind(project: ProjectCopy, first: dict[str, Any]) -> None:
    metrics, tags = first["metrics"], first["tags"]
    assert metrics["other.queries"] == 48
    trained, frozen, gain = (metrics[f"{prefix}other.fine.recall_at_1"] for prefix in ("", "baseline.", "gain."))
    assert gain == pytest.approx(trained - frozen)
    assert metrics["gain.other.fine.recall_at_1.low"] <= gain <= metrics["gain.other.fine.recall_at_1.high"]
    assert 0 <= metrics["novel_queries"] <= 1
    assert 0 <= metrics["other.novel_queries"] <= 1
    assert first["params"]["evaluate.other"] == tags["other.source"] == str(project.folder / "other")
    assert tags["other.result"].startswith(f"48 of 48 images of another kind were searched among the others: recall@1 {trained:.4f}")
    summary = project.run("deeprank", "summary", "--name", "smoke").stdout
    (report,) = [Path(line.strip()) for line in summary.splitlines() if line.endswith("report.html")]
    assert f"<p>{tags['other.result']}.</p>" in report.read_text()


def test_a_first_run_registers_one_challenger(first: dict[str, Any]) -> None:
    (version,) = first["models"]
    assert version["version"] == 1
    assert "challenger" in version["aliases"]
    assert version["gate_state"] == ("first-champion" if "champion" in version["aliases"] else "no-champion")
    assert version["gate_reason"].startswith("no champion yet: recall@1")


def test_the_summary_names_the_report_and_the_search_page(project: ProjectCopy, first: dict[str, Any]) -> None:
    lines = project.run("deeprank", "summary", "--name", "smoke").stdout.splitlines()
    (report,) = [Path(line.strip()) for line in lines if line.endswith("report.html")]
    assert "<html" in report.read_text()
    assert lines[-1].strip().startswith("deeprank serve --model models:/smoke/")


def test_a_query_from_the_catalogue_is_found_at_distance_0(project: ProjectCopy, images: Path) -> None:
    image = next(images.rglob("000.jpg"))
    output = project.run("deeprank", "search", "--model", "models:/smoke/1", str(image), "-k", "3", "--json").stdout
    neighbors = json.loads(output)["neighbors"]
    assert len(neighbors) == 3
    assert images / neighbors[0]["path"] == image
    assert neighbors[0]["distance"] == pytest.approx(0, abs=1e-5)


def test_search_and_distance_agree(project: ProjectCopy, images: Path) -> None:
    image, model = next(images.rglob("001.jpg")), "models:/smoke@challenger"
    output = project.run("deeprank", "search", "--model", model, str(image), "-k", "4", "--json").stdout
    last = json.loads(output)["neighbors"][-1]
    output = project.run("deeprank", "distance", "-m", model, "-i1", str(image), "-i2", str(images / last["path"]), "--json").stdout
    assert json.loads(output)["distance"] == pytest.approx(last["distance"], abs=1e-5)


def test_evaluate_prints_the_metric_names_of_mlflow(project: ProjectCopy, images: Path) -> None:
    command = ("deeprank", "evaluate", "--model", "models:/smoke/1", "--queries", str(images), "--gallery", str(images), "--json")
    result = json.loads(project.run(*command).stdout)
    # The gallery holds each query, which is left out of its own neighbors.
    assert 0 < result["fine"]["recall_at_1"] < 1
    assert set(result["fine"]) == set(result["coarse"]) == {"recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"}
    assert 0 < result["triplet_accuracy"] <= 1


def test_a_second_run_is_cached_and_registers_nothing(project: ProjectCopy, first: dict[str, Any]) -> None:
    models = project.models()
    (project.folder / "extending.yaml").write_text("extends: configs/smoke.yaml\n")
    second = project.pipeline(config="extending.yaml")
    assert second["steps"] == CACHED
    assert second["models"] == models
    # Only the number of files that were read differs.
    assert {**second["metrics"], "data.files.read": 192} == first["metrics"]
    assert second["metrics"]["data.files.read"] == 0
    assert (second["figures"], second["curve"], second["params"]) == (first["figures"], first["curve"], first["params"])


def test_changed_training_code_runs_training_and_its_successors(project: ProjectCopy, first: dict[str, Any]) -> None:
    source = project.folder / "deeprank" / "training" / "optimizers.py"
    text = source.read_text()
    changed = text.replace('"weight_decay": weight_decay', '"weight_decay": 2 * weight_decay')
    assert changed != text
    try:
        source.write_text(text + "\n# The same weights come out.\n")
        commented = project.pipeline()
        source.write_text(changed)
        run = project.pipeline()
    finally:
        source.write_text(text)
    assert commented["steps"] == CACHED | {"train": "completed"}
    assert run["steps"] == dict.fromkeys(STEPS, "completed") | {"leakage": "cached", "sample_triplets": "cached"}
    assert len(run["models"]) == len(commented["models"]) + 1
    # The champion, if the first release is one, was evaluated on the images of another kind, as one more class group.
    assert ("gate.other_gain" in run["metrics"]) is (run["tags"]["gate.champion_before"] != "none")


def test_a_new_image_runs_every_step_and_keeps_the_old_version(project: ProjectCopy, images: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(images, tmp_path / "images")
    source = f"ingest.source={folder}"
    assert project.pipeline(source)["steps"] == CACHED
    draw_image(0, 99).save(next(folder.rglob("000.jpg")).parent / "new image.JPG", quality=90)
    run = project.pipeline(source)
    assert run["steps"] == dict.fromkeys(STEPS, "completed")
    assert (run["tags"]["catalogue.version"], run["metrics"]["data.files.read"]) == ("2", 1)
    assert project.pipeline(source, "ingest.version=1")["steps"] == CACHED


def test_a_misspelled_key_ends_a_run_before_it_starts(project: ProjectCopy) -> None:
    config = project.folder / "misspelled.yaml"
    config.write_text("parameters:\n  train:\n    epocs: 3\n")
    before = project.python(COUNT_RUNS)
    result = project.run("zenml", "pipeline", "run", "pipelines.training", "-c", str(config), check=False)
    assert result.returncode != 0
    assert "unknown key parameters.train.epocs; did you mean epochs?" in result.stdout + result.stderr
    assert project.python(COUNT_RUNS) == before


def test_a_missing_folder_ends_a_run_with_its_name(project: ProjectCopy) -> None:
    before = project.python(COUNT_RUNS)
    result = project.run("deeprank", "run", "configs/smoke.yaml", "--set", "ingest.source=/no/such/folder", check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert output.count("/no/such/folder does not exist") == 1
    assert "Traceback" not in output
    assert project.python(COUNT_RUNS) == before


@pytest.mark.parametrize(
    "command", [("deeprank", "run"), ("zenml", "pipeline", "run", "pipelines.training", "-c")], ids=["deeprank", "zenml"]
)
def test_an_error_in_a_step_ends_a_run_in_one_message(project: ProjectCopy, tmp_path: Path, command: tuple[str, ...]) -> None:
    images, config = tmp_path / "images" / "only class", project.folder / "one class.yaml"
    images.mkdir(parents=True)
    draw_image(0, 99).save(images / "1.jpg")
    config.write_text(f"parameters:\n  ingest: {{source: {images.parent}}}\n")
    result = project.run(*command, str(config), check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 1
    message, log = result.stderr.splitlines()[-2:]
    assert message.startswith("Error: ")
    assert output.count(message.removeprefix("Error: ")) == 1
    assert "Traceback" not in output
    file = Path(log.removeprefix("The traceback is in "))
    assert file.parent == project.folder / ".deeprank" / "logs"
    text = file.read_text()
    assert text.startswith("Traceback (most recent call last):")
    assert message.removeprefix("Error: ") in text

"""A cron daemon starts retraining on a catalogue that grew: the first run registers a release, which the running service loads; the
second run finds no new image. Then a manual run adds a new image to the index without a training.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deeprank.data.synthetic import write_synthetic
from tests.e2e.conftest import LAST_RUN, ProjectCopy, copy_project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cron") is None or shutil.which("crontab") is None, reason="cron is not installed: apt install cron"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may start a cron daemon"),
]

# Seconds for two runs that cron starts, one of them with a training.
TIMEOUT_S = 1500
CONFIG = """
parameters:
  ingest: {{source: {images}}}
  retraining_due: {{min_new_images: 6, init: champion}}
  train: {{epochs: 1, train_image_sizes: [64], eval_image_size: 64, classes_per_batch: 4, precision: fp32}}
  register: {{name: smoke, promotion: {{min_queries: 10, floor: {floor}}}}}
  service: {{url: "{url}", on_failure: stop}}
"""


@pytest.fixture
def project(tmp_path: Path) -> ProjectCopy:
    """A project whose registry is empty."""
    return copy_project(tmp_path / "project")


@pytest.fixture
def crontab() -> Iterator[None]:
    """Restore the user's crontab."""
    before = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    yield
    if before.returncode == 0:
        subprocess.run(["crontab", "-"], input=before.stdout, text=True, check=True)
    else:
        subprocess.run(["crontab", "-r"], capture_output=True, check=False)


@pytest.fixture
def daemon(crontab: None) -> Iterator[None]:
    """Run a cron daemon if none is running."""
    if subprocess.run(["pgrep", "-x", "cron"], capture_output=True, check=False).returncode == 0:
        yield
        return
    with subprocess.Popen(["cron", "-f"]) as process:
        yield
        assert process.poll() is None
        process.terminate()


def _grow(folder: Path, count: int) -> None:
    """Add images until each of six products has `count`; all sixteen per product are in the folder `all` beside it."""
    all_images = folder.with_name("all")
    if not all_images.exists():
        write_synthetic(all_images, classes=6, images=16, size=96)
    for file in all_images.rglob("*.jpg"):
        if int(file.stem) < count:
            target = folder / file.relative_to(all_images)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)


def _schedule(project: ProjectCopy, *words: str) -> Any:
    return project.run("python", "-m", "pipelines.schedule", *words)


def _log(file: Path) -> str:
    """Return the log; runs that end because another one holds the lock write into it, too."""
    return file.read_text() if file.exists() else ""


@contextmanager
def _service(project: ProjectCopy) -> Iterator[str]:
    """Serve the champion; without one, the service is not ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with project.start("deeprank", "serve", "--model", "models:/smoke@champion", "--port", str(port)) as process:
        try:
            yield f"http://127.0.0.1:{port}"
            assert process.poll() is None
        finally:
            process.terminate()


def test_cron_retrains_on_new_images_only(project: ProjectCopy, daemon: None, tmp_path: Path) -> None:
    with _service(project) as url:
        _retrain_twice(project, tmp_path, url)
        answer = httpx.get(f"{url}/v1/model").json()
        assert (answer["name"], answer["version"], answer["canary_passed"]) == ("smoke", 2, True)
        _add_one_image(project, tmp_path, url)


def _add_one_image(project: ProjectCopy, tmp_path: Path, url: str) -> None:
    """Add an image: no training is due, but the service finds it after the run."""
    all_images, images = tmp_path / "all", tmp_path / "images"
    file = next(path for path in sorted(all_images.rglob("*.jpg")) if int(path.stem) == 15)
    shutil.copy(file, images / file.relative_to(all_images))
    num_images = httpx.get(f"{url}/v1/model").json()["num_images"]
    project.run("zenml", "pipeline", "run", "pipelines.retraining", "-c", str(project.folder / "nightly.yaml"))
    tags = project.python(LAST_RUN)["tags"]
    assert tags["retraining_due.reason"].startswith("1 new and 0 removed images since version 2 was trained")
    assert tags["refresh"] == "registered smoke version 3: the model of version 2, with 1 images added to its index and 0 removed"
    assert (tags["service.state"], tags["service.reason"]) == ("up to date", "it serves smoke version 3")
    answer = httpx.get(f"{url}/v1/model").json()
    assert (answer["version"], answer["num_images"]) == (3, num_images + 1)
    nearest = httpx.post(f"{url}/v1/search", files={"image": file.read_bytes()}).json()["neighbors"][0]
    assert nearest["path"].endswith(str(file.relative_to(all_images)))
    assert nearest["distance"] < 1e-3


def _retrain_twice(project: ProjectCopy, tmp_path: Path, url: str) -> None:
    images, config = tmp_path / "images", project.folder / "nightly.yaml"
    _grow(images, 12)
    # The floor is out of reach: the training makes no champion.
    config.write_text(CONFIG.format(images=images, floor=1.0, url=url))
    project.run("zenml", "pipeline", "run", "pipelines.retraining", "-c", str(config))
    assert [(version["version"], version["aliases"]) for version in project.models()] == [(1, "challenger")]
    _grow(images, 14)
    config.write_text(CONFIG.format(images=images, floor=0.0, url=url))

    # The second installation replaces the first.
    for cron in ("0 3 * * *", "*/2 * * * *"):
        _schedule(project, "install", "--cron", cron, "--config", str(config))
    (entry,) = json.loads(_schedule(project, "list", "--json").stdout)
    assert (entry["cron"], entry["config"], entry["backend"]) == ("*/2 * * * *", str(config), "cron")
    log, deadline = Path(entry["log"]), time.monotonic() + TIMEOUT_S
    while _log(log).count("ended with exit code 0") < 2 and time.monotonic() < deadline:
        time.sleep(5)
    text = _log(log)
    _schedule(project, "remove")
    assert json.loads(_schedule(project, "list", "--json").stdout) == []
    while _log(log).count(" starting\n") > _log(log).count("ended with exit code") and time.monotonic() < deadline:
        time.sleep(1)

    due = "training is due: 12 new and 0 removed images since version 1"
    not_due = "no training is due, its steps are skipped: no new or removed images since version 2"
    assert text.count(due) == text.count(not_due) == 1, text[-8000:]
    events = (due, "registered smoke version 2 (challenger, champion)", "service up to date: it serves smoke version 2", not_due)
    assert sorted(events, key=text.index) == list(events)
    # Runs that cron started meanwhile ended, and the log says why.
    text = _log(log)
    num_locked = text.count("ended with exit code 75")
    assert text.count("is in use by retraining") == num_locked == text.count("ended with exit code") - text.count("ended with exit code 0")
    assert [(version["version"], version["aliases"]) for version in project.models()] == [(2, "challenger, champion"), (1, "")]
    tags = project.python(LAST_RUN)["tags"]
    assert tags["retraining_due"] == "no"
    assert tags["retraining_due.reason"].startswith("no new or removed images since version 2 was trained")
    assert "release.version" not in tags

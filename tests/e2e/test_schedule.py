"""A real cron daemon starts retraining on a catalogue that grew: the first run registers and the running service takes it, the second
finds nothing new. Then a run by hand on a little more makes it findable without a training.
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
from tests.e2e.conftest import LAST_RUN, Copy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cron") is None or shutil.which("crontab") is None, reason="cron is not installed: apt install cron"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may start a cron daemon"),
]

# Seconds for two runs that cron starts, one of which trains.
LIMIT = 1500
CONFIG = """
parameters:
  ingest: {{source: {images}}}
  retraining_due: {{min_new_images: 6, init: champion}}
  train: {{epochs: 1, train_image_sizes: [64], eval_image_size: 64, classes_per_batch: 4, precision: fp32}}
  register: {{name: smoke, promotion: {{min_queries: 10, floor: {floor}}}}}
  service: {{url: "{url}", on_failure: stop}}
"""


@pytest.fixture
def crontab() -> Iterator[None]:
    """Give the user's crontab back as it was."""
    before = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    yield
    if before.returncode == 0:
        subprocess.run(["crontab", "-"], input=before.stdout, text=True, check=True)
    else:
        subprocess.run(["crontab", "-r"], capture_output=True, check=False)


@pytest.fixture
def daemon(crontab: None) -> Iterator[None]:
    """Run a cron daemon, unless one runs already."""
    if subprocess.run(["pgrep", "-x", "cron"], capture_output=True, check=False).returncode == 0:
        yield
        return
    with subprocess.Popen(["cron", "-f"]) as process:
        yield
        assert process.poll() is None
        process.terminate()


def _grow(folder: Path, count: int) -> None:
    """Have as many images of each of six products; those that are there stay."""
    every = folder.with_name("every")
    if not every.exists():
        write_synthetic(every, classes=6, images=16, size=96)
    for file in every.rglob("*.jpg"):
        if int(file.stem) < count:
            target = folder / file.relative_to(every)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)


def _schedule(project: Copy, *words: str) -> Any:
    return project.run("python", "-m", "pipelines.schedule", *words)


def _log(file: Path) -> str:
    """Return the log; those that leave for another run write into the middle of it."""
    return file.read_text() if file.exists() else ""


@contextmanager
def _service(project: Copy) -> Iterator[str]:
    """Serve what is champion; nothing, as long as there is none."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with project.start("deeprank", "serve", "--model", "models:/smoke@champion", "--port", str(port)) as process:
        try:
            yield f"http://127.0.0.1:{port}"
            assert process.poll() is None
        finally:
            process.terminate()


def test_cron_retrains_on_what_came_and_then_finds_nothing_new(project: Copy, daemon: None, tmp_path: Path) -> None:
    with _service(project) as url:
        _retrain_twice(project, tmp_path, url)
        answer = httpx.get(f"{url}/v1/model").json()
        assert (answer["name"], answer["version"], answer["checked"]) == ("smoke", 2, True)
        _find_what_is_too_little(project, tmp_path, url)


def _find_what_is_too_little(project: Copy, tmp_path: Path, url: str) -> None:
    """One image more: no training is due, but the service finds it, once the run has ended."""
    every, images = tmp_path / "every", tmp_path / "images"
    file = next(path for path in sorted(every.rglob("*.jpg")) if int(path.stem) == 15)
    shutil.copy(file, images / file.relative_to(every))
    indexed = httpx.get(f"{url}/v1/model").json()["images"]
    project.run("zenml", "pipeline", "run", "pipelines.retraining", "-c", str(project.folder / "nightly.yaml"))
    tags = project.mlflow_run(project.python(LAST_RUN)["name"])["tags"]
    assert tags["retrain.reason"].startswith("1 new images and 0 gone since version 2 was trained")
    assert tags["refresh"] == "registered smoke version 3: the model of version 2, its index with 1 images more and 0 fewer"
    assert (tags["service.state"], tags["service.reason"]) == ("taken", "it serves smoke version 3")
    answer = httpx.get(f"{url}/v1/model").json()
    assert (answer["version"], answer["images"]) == (3, indexed + 1)
    nearest = httpx.post(f"{url}/v1/search", files={"image": file.read_bytes()}).json()["neighbors"][0]
    assert nearest["path"].endswith(str(file.relative_to(every)))
    assert nearest["distance"] < 1e-3


def _retrain_twice(project: Copy, tmp_path: Path, url: str) -> None:
    images, config = tmp_path / "images", project.folder / "nightly.yaml"
    _grow(images, 12)
    # Below the floor: a training that makes no champion.
    config.write_text(CONFIG.format(images=images, floor=1.0, url=url))
    project.run("zenml", "pipeline", "run", "pipelines.retraining", "-c", str(config))
    assert [(version["version"], version["aliases"]) for version in project.models()] == [(1, "challenger")]
    _grow(images, 14)
    config.write_text(CONFIG.format(images=images, floor=0.0, url=url))

    # Twice: there is one entry.
    for cron in ("0 3 * * *", "*/2 * * * *"):
        _schedule(project, "install", "--cron", cron, "--config", str(config))
    (entry,) = json.loads(_schedule(project, "list", "--json").stdout)
    assert (entry["cron"], entry["config"], entry["kept_by"]) == ("*/2 * * * *", str(config), "cron")
    log, until = Path(entry["log"]), time.monotonic() + LIMIT
    while _log(log).count("ended with exit code 0") < 2 and time.monotonic() < until:
        time.sleep(5)
    text = _log(log)
    _schedule(project, "remove")
    assert json.loads(_schedule(project, "list", "--json").stdout) == []
    while _log(log).count(" starting\n") > _log(log).count("ended with exit code") and time.monotonic() < until:
        time.sleep(1)

    due = "training is due: 12 new images and 0 gone since version 1"
    not_due = "no training is due, its steps are skipped: nothing new since version 2"
    assert text.count(due) == text.count(not_due) == 1, text[-8000:]
    events = (due, "registered smoke version 2 (challenger, champion)", "service taken: it serves smoke version 2", not_due)
    assert sorted(events, key=text.index) == list(events)
    # What cron started meanwhile left, saying why.
    text = _log(log)
    left = text.count("ended with exit code 75")
    assert text.count("is in use by retraining") == left == text.count("ended with exit code") - text.count("ended with exit code 0")
    assert [(version["version"], version["aliases"]) for version in project.models()] == [(2, "challenger, champion"), (1, "")]
    tags = project.mlflow_run(project.python(LAST_RUN)["name"])["tags"]
    assert tags["retrain.due"] == "no"
    assert tags["retrain.reason"].startswith("nothing new since version 2 was trained")
    assert "release.version" not in tags

"""The order in which `source: auto` looks for images, and the download, from a repository on this disk."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from deeprank.data import sources
from deeprank.data.ingest import IngestSettings, SyntheticSettings
from deeprank.data.sources import fetch_grocery, source_folder
from deeprank.errors import DataError
from tests.drawing import put_all

FEW = SyntheticSettings(classes=2, images=2)


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder, without the variable DEEPRANK_DATA."""
    monkeypatch.setenv("DEEPRANK_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DEEPRANK_DATA", raising=False)
    return tmp_path / "state"


def folder_and_messages(settings: IngestSettings) -> tuple[Path, list[str]]:
    messages: list[str] = []
    return source_folder(settings, messages.append), messages


def test_a_folder_in_the_settings_is_used() -> None:
    assert folder_and_messages(IngestSettings(source="some/where")) == (Path("some/where"), [])


def test_auto_uses_deeprank_data_first(state_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(state_folder / "data" / "images", {"x/1.png": 1})
    monkeypatch.setenv("DEEPRANK_DATA", str(tmp_path / "mine"))
    folder, (message,) = folder_and_messages(IngestSettings())
    assert folder == tmp_path / "mine"
    assert "from the environment variable DEEPRANK_DATA" in message


def test_auto_uses_images_in_the_state_folder_next(state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_DATA", "")
    images = put_all(state_folder / "data" / "images", {"x/1.png": 1})
    put_all(state_folder / "data" / "grocery" / "dataset", {"train/x/1.png": 1})
    folder, (message,) = folder_and_messages(IngestSettings())
    assert folder == images
    assert "because this folder exists" in message


def test_auto_uses_the_downloaded_grocery_images_next(state_folder: Path) -> None:
    dataset = put_all(state_folder / "data" / "grocery" / "dataset", {"train/x/1.png": 1})
    folder, (message,) = folder_and_messages(IngestSettings())
    assert folder == dataset
    assert sources.GROCERY_COMMIT[:10] in message


def test_auto_uses_synthetic_images_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder, (message,) = folder_and_messages(IngestSettings(synthetic=FEW))
    assert "synthetic, because the public grocery images are not available (git is not installed)" in message
    assert len(list(folder.rglob("*.jpg"))) == 4


def test_auto_takes_no_synthetic_images_if_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"auto finds no images where this step runs.*name a folder that the step can read"):
        source_folder(IngestSettings(synthetic=FEW), print, allow_synthetic=False)


def test_synthetic_images_are_drawn_once_for_equal_settings() -> None:
    settings = IngestSettings(source="synthetic", synthetic=FEW)
    folder, messages = folder_and_messages(settings)
    files = sorted(folder.rglob("*.jpg"))
    times = [file.stat().st_mtime_ns for file in files]
    assert (len(files), messages) == (4, [])
    assert folder_and_messages(settings)[0] == folder
    assert [file.stat().st_mtime_ns for file in files] == times
    other, _ = folder_and_messages(IngestSettings(source="synthetic", synthetic=FEW.model_copy(update={"seed": 1})))
    assert other != folder
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".part")] == []


@dataclass(frozen=True)
class Repository:
    url: str
    commit: str
    folder: Path


def _git(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository like the public one, whose newest commit is not the pinned one."""
    folder = put_all(tmp_path / "remote", {f"dataset/{split}/x/{i}.png": i for i, split in enumerate(("train", "val", "test"))})
    put_all(folder, {"dataset/iconic-images/x/1.png": 7, "dataset/classes.csv": b"x", "LICENSE": b"MIT", "README.md": b"text"})
    _git(folder, "init", "--quiet")
    _git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "-m", "pinned")
    pinned = _git(folder, "rev-parse", "HEAD")
    put_all(folder, {"dataset/train/x/later.png": 9})
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "-m", "later")
    return Repository(folder.as_uri(), pinned, folder)


def test_images_and_license_of_the_pinned_commit_are_fetched(repository: Repository, tmp_path: Path) -> None:
    dataset = fetch_grocery(tmp_path / "state" / "data" / "grocery", repository.url, repository.commit, host="")
    assert sorted(file.relative_to(dataset).as_posix() for file in dataset.rglob("*") if file.is_file()) == [
        "test/x/2.png",
        "train/x/0.png",
        "val/x/1.png",
    ]
    assert sorted(path.name for path in dataset.parent.iterdir()) == ["LICENSE", "dataset"]
    assert (dataset / "train" / "x" / "0.png").read_bytes() == (repository.folder / "dataset" / "train" / "x" / "0.png").read_bytes()
    assert [path.name for path in (tmp_path / "state" / "data").iterdir()] == ["grocery"]


def test_a_second_fetch_uses_the_files_of_the_first(repository: Repository, tmp_path: Path) -> None:
    first = fetch_grocery(tmp_path / "grocery", repository.url, repository.commit, host="")
    shutil.rmtree(repository.folder)
    assert fetch_grocery(tmp_path / "grocery", repository.url, repository.commit, host="") == first


def test_a_missing_commit_is_an_error_that_leaves_no_files(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"git .*fetch.* exited with code"):
        fetch_grocery(tmp_path / "data" / "grocery", repository.url, "0" * 40, host="")
    assert list((tmp_path / "data").iterdir()) == []


def test_an_interrupted_fetch_is_repeated(repository: Repository, tmp_path: Path) -> None:
    put_all(tmp_path / "grocery.part", {"dataset/train/x/half.png": b"", ".git/HEAD": b"broken"})
    dataset = fetch_grocery(tmp_path / "grocery", repository.url, repository.commit, host="")
    assert not (dataset / "train" / "x" / "half.png").exists()


def test_without_git_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="git is not installed"):
        fetch_grocery(tmp_path / "grocery")

"""Where images come from, in order; and the download, against a repository on this disk."""

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
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project that has nothing beside it, with a state folder of its own."""
    monkeypatch.setattr(sources, "PROJECT", tmp_path / "work" / "main")
    monkeypatch.setenv("DEEPRANK_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DEEPRANK_DATA", raising=False)
    return tmp_path


def found(settings: IngestSettings) -> tuple[Path, list[str]]:
    said: list[str] = []
    return source_folder(settings, said.append), said


def test_a_folder_that_the_config_names_is_taken() -> None:
    assert found(IngestSettings(source="some/where")) == (Path("some/where"), [])


def test_auto_takes_the_given_folder_first_and_says_why(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(alone / "work" / "shared" / "data" / "grocery", {"x/1.png": 1})
    monkeypatch.setenv("DEEPRANK_DATA", str(alone / "mine"))
    folder, (line,) = found(IngestSettings())
    assert folder == alone / "mine"
    assert "because DEEPRANK_DATA says so" in line


def test_auto_takes_the_images_beside_the_project_next(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_DATA", "")
    shared = put_all(alone / "work" / "shared" / "data" / "grocery", {"x/1.png": 1})
    folder, (line,) = found(IngestSettings())
    assert folder == shared
    assert "because it lies beside the project" in line


def test_auto_takes_what_was_downloaded_next(alone: Path) -> None:
    dataset = put_all(alone / "state" / "data" / "grocery" / "dataset", {"train/x/1.png": 1})
    folder, (line,) = found(IngestSettings())
    assert folder == dataset
    assert sources.GROCERY_COMMIT[:10] in line


def test_auto_renders_images_last_and_says_why(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(alone))
    folder, (line,) = found(IngestSettings(synthetic=FEW))
    assert "synthetic ones, because the public grocery images cannot be had (git is not installed)" in line
    assert len(list(folder.rglob("*.jpg"))) == 4


def test_images_are_rendered_once_for_each_setting() -> None:
    settings = IngestSettings(source="synthetic", synthetic=FEW)
    folder, said = found(settings)
    files = sorted(folder.rglob("*.jpg"))
    times = [file.stat().st_mtime_ns for file in files]
    assert (len(files), said) == (4, [])
    assert found(settings)[0] == folder
    assert [file.stat().st_mtime_ns for file in files] == times
    other, _ = found(IngestSettings(source="synthetic", synthetic=FEW.model_copy(update={"seed": 1})))
    assert other != folder
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".part")] == []


@dataclass(frozen=True)
class Repository:
    url: str
    commit: str
    folder: Path


def _git(folder: Path, *words: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True, env=clean).stdout.strip()


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


def test_the_pinned_commit_is_fetched_without_what_is_no_image(repository: Repository, tmp_path: Path) -> None:
    dataset = fetch_grocery(tmp_path / "state" / "data" / "grocery", repository.url, repository.commit, host="")
    assert sorted(file.relative_to(dataset).as_posix() for file in dataset.rglob("*") if file.is_file()) == [
        "test/x/2.png",
        "train/x/0.png",
        "val/x/1.png",
    ]
    assert sorted(path.name for path in dataset.parent.iterdir()) == ["LICENSE", "dataset"]
    assert (dataset / "train" / "x" / "0.png").read_bytes() == (repository.folder / "dataset" / "train" / "x" / "0.png").read_bytes()
    assert [path.name for path in (tmp_path / "state" / "data").iterdir()] == ["grocery"]


def test_a_second_fetch_finds_what_the_first_left(repository: Repository, tmp_path: Path) -> None:
    first = fetch_grocery(tmp_path / "grocery", repository.url, repository.commit, host="")
    shutil.rmtree(repository.folder)
    assert fetch_grocery(tmp_path / "grocery", repository.url, repository.commit, host="") == first


def test_a_commit_that_is_not_there_leaves_nothing(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"git .*fetch.* ended with"):
        fetch_grocery(tmp_path / "data" / "grocery", repository.url, "0" * 40, host="")
    assert list((tmp_path / "data").iterdir()) == []


def test_what_an_interrupted_fetch_left_is_no_obstacle(repository: Repository, tmp_path: Path) -> None:
    put_all(tmp_path / "grocery.part", {"dataset/train/x/half.png": b"", ".git/HEAD": b"broken"})
    dataset = fetch_grocery(tmp_path / "grocery", repository.url, repository.commit, host="")
    assert not (dataset / "train" / "x" / "half.png").exists()


def test_without_git_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="git is not installed"):
        fetch_grocery(tmp_path / "grocery")

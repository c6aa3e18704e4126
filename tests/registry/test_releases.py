"""Releases in a real registry: registered, promoted or held, found again, and the same as what went in."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deeprank.checksums import hash_file
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.registry.releases import PARTS, Release, fetch, find, latest_release, open_release, versions
from tests.serving.conftest import NAME, Store


def _contents(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): hash_file(file) for part in PARTS for file in (folder / part).rglob("*") if file.is_file()}


@pytest.mark.parametrize(("name", "number"), [("1", 1), ("@champion", 3), ("/champion", 3), ("@challenger", 3), ("/2", 2)])
def test_a_release_is_opened_by_version_or_alias_and_is_what_was_registered(store: Store, name: str, number: int) -> None:
    release = open_release(f"models:/{NAME}{name if name[0] in '@/' else '/' + name}")
    assert _contents(release.folder) == _contents(store.folders[number - 1])
    assert release.index.facts["model"] == release.bundle.weights_hash


def test_a_release_is_fetched_once(store: Store, tracking: Path) -> None:
    folder = fetch(find(NAME, "1"))
    marked = folder / "bundle" / "mark"
    marked.touch()
    try:
        assert fetch(find(NAME, "1")) == folder
        assert marked.exists()
    finally:
        marked.unlink()
    assert folder.is_relative_to(tracking / "state" / "releases")
    assert not [path for path in folder.parent.iterdir() if path.name.endswith(".part")]


def test_a_release_that_several_want_at_once_is_whole_for_each(store: Store, tracking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_HOME", str(tracking / "another_state"))
    version = find(NAME, "2")
    assert version is not None
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: _contents(fetch(version)), range(6)))
    assert found == [_contents(store.folders[1])] * 6


def test_no_pickle_goes_into_the_registry(store: Store, tracking: Path) -> None:
    files = [file for file in (tracking / "artifacts").rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if file.suffix in (".pkl", ".pickle", ".pt", ".pth") or file.read_bytes()[:2] == b"\x80\x04"]
    assert store.folders


def test_a_bare_bundle_is_a_release_without_an_index(bundle: Bundle) -> None:
    release = open_release(str(bundle.folder))
    assert release.bundle.weights_hash == bundle.weights_hash
    with pytest.raises(ModelError, match="holds no index"):
        _ = release.index


def test_an_index_of_another_model_is_refused(store: Store) -> None:
    third = Release(store.folders[2])
    assert third.index.rows["path"].is_unique
    mixed = store.folders[0].parent / "mixed"
    mixed.mkdir()
    (mixed / "bundle").symlink_to(store.folders[2] / "bundle")
    (mixed / "index").symlink_to(store.folders[0] / "index")
    with pytest.raises(ModelError, match="was built with another model"):
        _ = Release(mixed).index


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("no/such/folder", "no/such/folder is no folder; --model wants a bundle's folder, models:/NAME@ALIAS or models:/NAME/VERSION"),
        (f"models:/{NAME}/9", r"not in the registry .*; it has 3 \(challenger, champion\), 2 \(no alias\), 1 \(no alias\)"),
        (f"models:/{NAME}@best", r"it has 3 \(challenger, champion\)"),
        (f"models:/{NAME}", r"it has 3 \(challenger, champion\)"),
        (f"models:/{NAME}@", r"it has 3 \(challenger, champion\)"),
        ("models:/nobody@champion", "it has no version of nobody"),
        ("models:/nobody/1", "it has no version of nobody"),
        ("models:/", "is not in the registry"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(store: Store, model: str, complaint: str) -> None:
    assert store.registered
    with pytest.raises(ModelError, match=complaint):
        open_release(model)


def test_versions_come_newest_first_with_figures_and_reasons(store: Store) -> None:
    found = versions(NAME)
    assert [row["version"] for row in found] == [3, 2, 1]
    assert [row["aliases"] for row in found] == ["challenger, champion", "", ""]
    assert [row["recall_at_1"] for row in found] == [0.7, 0.55, 0.6]
    assert {row["catalogue_version"] for row in found} == {"1"}
    assert [row["run_id"] for row in found] == store.run_ids[::-1]
    assert [row["reason"] for row in found] == [one.decision.reason for one in store.registered[::-1]]
    assert [row["gate"] for row in found] == ["promoted", "held", "no-champion"]
    assert versions("nobody") == []


def test_the_newest_release_is_summed_up_with_images_to_try(store: Store, synthetic_folder: Path) -> None:
    summary = latest_release(NAME)
    assert (summary.version, summary.aliases) == (3, "challenger, champion")
    assert summary.metrics["fine.recall_at_1"].value == 0.7
    assert summary.reason == store.registered[2].decision.reason
    assert Path(summary.source) == synthetic_folder
    example, other = (synthetic_folder / path for path in (summary.example, summary.other))
    assert example.is_file()
    assert other.is_file()
    assert example != other
    assert example.parent == other.parent
    with pytest.raises(ModelError, match="no release of nobody is registered yet"):
        latest_release("nobody")

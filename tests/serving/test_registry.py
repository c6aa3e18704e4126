"""Releases in a real registry: registered, promoted or held, found again, and the same as what went in."""

import json
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest
from pydantic import ValidationError

from deeprank.checksums import hash_file
from deeprank.errors import ModelError
from deeprank.model.bundle import Bundle
from deeprank.serving.registry import (
    PARTS,
    RegisterSettings,
    Release,
    fetch,
    find,
    latest_release,
    open_release,
    register,
    release_facts,
    versions,
)
from tests.serving.conftest import NAME, Store


def _contents(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): hash_file(file) for part in PARTS for file in (folder / part).rglob("*") if file.is_file()}


def test_each_release_is_the_next_version(store: Store) -> None:
    assert [(one.name, one.version) for one in store.registered] == [(NAME, 1), (NAME, 2), (NAME, 3)]


def test_the_first_above_the_floor_and_each_better_one_become_champion(store: Store) -> None:
    assert [one.decision.promoted for one in store.registered] == [True, False, True]
    assert [one.aliases for one in store.registered] == [("challenger", "champion"), ("challenger",), ("challenger", "champion")]
    assert "0.5500 does not exceed the champion's 0.6000" in store.registered[1].decision.reason
    assert "0.7000 exceeds the champion's 0.6000" in store.registered[2].decision.reason


def test_a_first_release_below_the_floor_is_registered_and_held(store: Store) -> None:
    with mlflow.start_run(experiment_id=store.experiment):
        registered = register(store.folders[1], RegisterSettings(name="too-weak", promotion={"floor": 0.9}), {})
    assert (registered.version, registered.aliases, registered.decision.promoted) == (1, ("challenger",), False)
    assert find("too-weak", "champion") is None
    assert find("too-weak", "challenger") is not None


def test_a_version_keeps_its_facts_as_tags(store: Store) -> None:
    tags = [find(NAME, str(number)).tags for number in (1, 2, 3)]
    assert [tag["promotion"] for tag in tags] == ["promoted", "held", "promoted"]
    assert [tag["promotion.champion_before"] for tag in tags] == ["none", "1", "1"]
    assert [tag["catalogue.version"] for tag in tags] == ["1", "2", "3"]
    assert [tag["fine.recall_at_1"] for tag in tags] == ["0.6000", "0.5500", "0.7000"]
    assert [tag["weights"] for tag in tags] == [Bundle(folder / "bundle").weights_hash for folder in store.folders]
    assert tags[0]["weights"] != tags[2]["weights"]


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
    assert [row["catalogue_version"] for row in found] == ["3", "2", "1"]
    assert [row["run_id"] for row in found] == store.run_ids[::-1]
    assert [row["promotion"] for row in found] == [one.decision.reason for one in store.registered[::-1]]
    assert versions("nobody") == []


def test_the_newest_release_is_summed_up_with_photographs_to_try(store: Store, rendered_folder: Path) -> None:
    summary = latest_release(NAME)
    assert (summary.version, summary.aliases) == (3, "challenger, champion")
    assert summary.metrics["fine.recall_at_1"].value == 0.7
    assert summary.reason == store.registered[2].decision.reason
    assert Path(summary.source) == rendered_folder
    example, other = (rendered_folder / path for path in (summary.example, summary.other))
    assert example.is_file()
    assert other.is_file()
    assert example != other
    assert example.parent == other.parent
    with pytest.raises(ModelError, match="no release of nobody is registered yet"):
        latest_release("nobody")


def test_release_facts_are_json(store: Store) -> None:
    facts = json.loads(release_facts(store.registered[1]))
    reason = store.registered[1].decision.reason
    assert facts == {"name": NAME, "version": 2, "aliases": ["challenger"], "promoted": False, "reason": reason}


@pytest.mark.parametrize("name", ["", "two words", "a/b", "a'b"])
def test_a_name_that_would_not_fit_into_a_model_address_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        RegisterSettings(name=name)


def test_a_release_can_be_registered_again_without_touching_it_and_without_a_warning(store: Store) -> None:
    before = _contents(store.folders[0])
    with mlflow.start_run(experiment_id=store.experiment), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        register(store.folders[0], RegisterSettings(name="again"), {})
    assert _contents(store.folders[0]) == before
    assert np.isclose(versions("again")[0]["recall_at_1"], 0.6)

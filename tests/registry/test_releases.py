"""Releases in a real registry: found by version or alias, fetched once, and equal to what was registered."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest

from deeprank.checksums import hash_file, write_manifest
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.registry.register import RegisterSettings, register
from deeprank.registry.releases import (
    RELEASE_FOLDERS,
    Release,
    fetch_release,
    find_version,
    list_versions,
    open_release,
    summarize_latest_release,
)
from deeprank.triplets.sampling import Triplets
from tests.registry_fixtures import NAME, Store, gate_decision, make_release


def _contents(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hash_file(file)
        for name in RELEASE_FOLDERS
        for file in (folder / name).rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize(("selector", "number"), [("/1", 1), ("@champion", 3), ("/champion", 3), ("@challenger", 3), ("/2", 2)])
def test_release_is_opened_by_version_or_alias(store: Store, selector: str, number: int) -> None:
    release = open_release(f"models:/{NAME}{selector}")
    assert _contents(release.folder) == _contents(store.folders[number - 1])
    assert release.index.manifest["weights_hash"] == release.bundle.weights_hash


def test_release_is_fetched_once(store: Store, tracking: Path) -> None:
    folder = fetch_release(find_version(NAME, "1"))
    marker = folder / "bundle" / "marker"
    marker.touch()
    try:
        assert fetch_release(find_version(NAME, "1")) == folder
        assert marker.exists()
    finally:
        marker.unlink()
    assert folder.is_relative_to(tracking / "state" / "releases")
    assert not [path for path in folder.parent.iterdir() if path.name.endswith(".part")]


def test_concurrent_fetches_all_get_the_complete_release(store: Store, tracking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_HOME", str(tracking / "another_state"))
    version = find_version(NAME, "2")
    assert version is not None
    with ThreadPoolExecutor(6) as pool:
        contents = list(pool.map(lambda _: _contents(fetch_release(version)), range(6)))
    assert contents == [_contents(store.folders[1])] * 6


def test_registry_has_no_pickle(store: Store, tracking: Path) -> None:
    files = [file for file in (tracking / "artifacts").rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if file.suffix in (".pkl", ".pickle", ".pt", ".pth") or file.read_bytes()[:2] == b"\x80\x04"]
    assert store.folders


def test_bare_bundle_is_a_release_without_index(bundle: Bundle) -> None:
    release = open_release(str(bundle.folder))
    assert release.bundle.weights_hash == bundle.weights_hash
    with pytest.raises(ModelError, match="has no index"):
        _ = release.index


def test_index_of_another_model_is_refused(store: Store) -> None:
    third = Release(store.folders[2])
    assert third.index.rows["path"].is_unique
    mixed = store.folders[0].parent / "mixed"
    mixed.mkdir()
    (mixed / "bundle").symlink_to(store.folders[2] / "bundle")
    (mixed / "index").symlink_to(store.folders[0] / "index")
    with pytest.raises(ModelError, match="was built with another model"):
        _ = Release(mixed).index


@pytest.mark.parametrize(
    ("file", "number", "message"),
    [
        ("bundle/config.json", 1, r"was made by an older version of deeprank: config\.json has format 1, .*; train again: `deeprank run`"),
        ("index/index.json", 1, r"was made by an older version of deeprank: index\.json has format 1, .*; train again: `deeprank run`"),
        ("index/index.json", 99, r"was made by a newer version of deeprank: index\.json has format 99, .*; upgrade deeprank"),
    ],
)
def test_release_of_another_format_is_refused(
    store: Store, tracking: Path, monkeypatch: pytest.MonkeyPatch, file: str, number: int, message: str
) -> None:
    monkeypatch.setenv("DEEPRANK_HOME", str(tracking / f"state-{file.partition('/')[0]}-{number}"))
    manifest = fetch_release(find_version(NAME, "3")) / file
    facts = json.loads(manifest.read_text())
    del facts["checksum"]
    write_manifest(manifest, facts | {"format": number})
    with pytest.raises(ModelError, match=f"^version 3 of {NAME} {message}"):
        open_release(f"models:/{NAME}@champion")
    with pytest.raises(ModelError, match=f"^{manifest.parents[1]} {message}"):
        open_release(str(manifest.parents[1]))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no/such/folder", "no/such/folder is not a folder; --model takes a bundle's folder, models:/NAME@ALIAS or models:/NAME/VERSION"),
        (f"models:/{NAME}/9", r"not in the registry .*; it has 3 \(challenger, champion\), 2 \(no alias\), 1 \(no alias\)"),
        (f"models:/{NAME}@best", r"it has 3 \(challenger, champion\)"),
        (f"models:/{NAME}", r"it has 3 \(challenger, champion\)"),
        (f"models:/{NAME}@", r"it has 3 \(challenger, champion\)"),
        ("models:/nobody@champion", "it has no version of nobody"),
        ("models:/nobody/1", "it has no version of nobody"),
        ("models:/", "is not in the registry"),
    ],
)
def test_missing_release_is_reported_with_existing_ones(store: Store, model: str, message: str) -> None:
    assert store.registered
    with pytest.raises(ModelError, match=message):
        open_release(model)


def test_versions_are_listed_newest_first(store: Store) -> None:
    versions = list_versions(NAME)
    assert [row.version for row in versions] == [3, 2, 1]
    assert [row.aliases for row in versions] == ["challenger, champion", "", ""]
    assert [row.recall_at_1 for row in versions] == [0.7, 0.55, 0.6]
    assert {row.catalogue_version for row in versions} == {"1"}
    assert [row.run_id for row in versions] == store.run_ids[::-1]
    assert [row.gate_reason for row in versions] == [release.decision.reason for release in store.registered[::-1]]
    assert [row.gate_state for row in versions] == ["promoted", "held", "first-champion"]
    assert list_versions("nobody") == []


def test_summary_of_the_newest_release_has_two_images(store: Store, synthetic_folder: Path) -> None:
    summary = summarize_latest_release(NAME)
    assert (summary.version, summary.aliases) == (3, "challenger, champion")
    assert summary.metrics["fine.recall_at_1"].value == 0.7
    assert summary.reason == store.registered[2].decision.reason
    assert Path(summary.source) == synthetic_folder
    example, other_example = (synthetic_folder / path for path in (summary.example, summary.other_example))
    assert example.is_file()
    assert other_example.is_file()
    assert example != other_example
    assert example.parent == other_example.parent
    with pytest.raises(ModelError, match="no release of nobody is registered yet"):
        summarize_latest_release("nobody")


def test_summary_works_if_a_class_has_one_image(
    store: Store, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path: Path
) -> None:
    changed = Catalogue(catalogue.uri, catalogue.version)
    labels = catalogue.frame["label"].copy()
    labels.iloc[catalogue.rows("test")[0]] = "aa/only/one"
    changed.__dict__["frame"] = catalogue.frame.assign(label=labels)
    folder = make_release(tmp_path / "release", changed, bundle, embeddings, triplets, 0.6)
    with mlflow.start_run(experiment_id=store.experiment):
        mlflow.set_tag("catalogue.source", "x")
        register(folder, RegisterSettings(name="singleton"), gate_decision(0.6, None), catalogue, "card")
    summary = summarize_latest_release("singleton")
    assert summary.example != summary.other_example

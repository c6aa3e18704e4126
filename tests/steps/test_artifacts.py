"""Artifacts are folders; their hash covers what the next step depends on."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from zenml.enums import VisualizationType

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.home import home
from deeprank.models.bundle import Bundle
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets
from steps.artifacts.base import RECORD, Artifact, new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.materializers import FolderMaterializer
from tests.drawing import put_all


def _recorded(folder: Path, value: float = 1.0) -> Path:
    record = Record(folder / RECORD)
    record.metric("train.loss", 2, 1)
    record.metric("train.loss", value, 2)
    record.note("model.weights_hash", "abc")
    record.figure("curves", Figure())
    record.save()
    return folder


def test_new_folders_are_empty_and_in_the_state_folder() -> None:
    first, second = new_folder(), new_folder()
    assert first != second
    assert first.is_relative_to(home())
    assert list(first.iterdir()) == []


def test_the_content_hash_depends_on_names_and_bytes(tmp_path: Path) -> None:
    files = {"a.txt": b"1", "b/c.txt": b"2"}
    plain = Artifact(put_all(tmp_path / "plain", files)).content_hash()
    assert Artifact(put_all(tmp_path / "same", dict(reversed(files.items())))).content_hash() == plain
    for name, other in {"bytes": {"a.txt": b"0"}, "name": {"d.txt": b""}, "place": {"b/a.txt": b"1"}}.items():
        assert Artifact(put_all(tmp_path / name, files | other)).content_hash() != plain


def test_the_content_hash_leaves_out_the_record(tmp_path: Path) -> None:
    first, second = (_recorded(put_all(tmp_path / str(value), {"a.txt": b"1"}), value) for value in (1.0, 2.0))
    assert (
        Artifact(first).content_hash()
        == Artifact(second).content_hash()
        == Artifact(put_all(tmp_path / "x", {"a.txt": b"1"})).content_hash()
    )
    assert Artifact(first).record.points[-1].value == 1.0


def test_the_hash_of_a_catalogue_is_its_fingerprint(tmp_path: Path, catalogue: Catalogue) -> None:
    artifact = CatalogueArtifact(tmp_path)
    artifact.write(catalogue)
    assert artifact.open() == catalogue
    assert artifact.content_hash() == catalogue.fingerprint


def test_an_empty_catalogue_has_a_hash_of_its_own(tmp_path: Path, catalogue: Catalogue) -> None:
    artifact = CatalogueArtifact(tmp_path / "output")
    _recorded(artifact.folder)
    before = artifact.content_hash()
    assert artifact.empty
    artifact.write(catalogue)
    assert not artifact.empty
    assert artifact.content_hash() != before


def test_triplets_are_the_same_after_writing(tmp_path: Path, catalogue: Catalogue, triplets: Triplets) -> None:
    hashes = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / str(number)).mkdir()
        artifact = TripletsArtifact(tmp_path / str(number))
        artifact.write(sample_triplets(catalogue.frame, SampleSettings(seed=seed), catalogue.fingerprint))
        hashes.append(artifact.content_hash())
    opened = TripletsArtifact(tmp_path / "0").open()
    assert opened.frame.equals(triplets.frame)
    assert opened.fingerprint == catalogue.fingerprint
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_bundle_opens_from_its_folder(bundle: Bundle) -> None:
    assert BundleArtifact(bundle.folder).open().weights_hash == bundle.weights_hash


@pytest.fixture
def materializer(tmp_path: Path) -> FolderMaterializer:
    return FolderMaterializer(str(tmp_path / "stored"))


def test_an_artifact_is_stored_as_a_folder(materializer: FolderMaterializer, tmp_path: Path) -> None:
    artifact = Artifact(_recorded(put_all(tmp_path / "output", {"a.txt": b"1", "b/c.bin": b"\0\1"})))
    materializer.save(artifact)
    loaded = materializer.load(BundleArtifact)
    assert isinstance(loaded, BundleArtifact)
    assert (loaded.folder / "b" / "c.bin").read_bytes() == b"\0\1"
    assert loaded.content_hash() == artifact.content_hash() == materializer.compute_content_hash(artifact)
    assert loaded.record == Record(loaded.folder / RECORD, artifact.record.points, artifact.record.notes)


def test_a_stored_artifact_is_downloaded_in_parts(tmp_path: Path) -> None:
    stored = _recorded(put_all(tmp_path / "stored", {"index/vectors.npy": b"0" * 1000}))
    loaded = Artifact(tmp_path / "local", str(stored))
    assert not loaded.skipped
    assert not (tmp_path / "local").exists()
    # What a report needs does not grow with the index.
    assert loaded.record.notes == Artifact(stored).record.notes
    assert {file.name for file in (tmp_path / "local").iterdir()} == {RECORD}
    assert (loaded.folder / "index" / "vectors.npy").read_bytes() == b"0" * 1000


def test_an_artifact_that_is_lost_is_named(tmp_path: Path) -> None:
    lost = Artifact(tmp_path / "local", str(tmp_path / "gone"))
    assert lost.record.points == []
    with pytest.raises(DataError, match="gone: this artifact is no longer in the artifact store"):
        _ = lost.folder


def test_the_dashboard_shows_figures_last_numbers_and_notes(materializer: FolderMaterializer, tmp_path: Path) -> None:
    artifact = Artifact(_recorded(tmp_path / "output"))
    materializer.save(artifact)
    visualizations = materializer.save_visualizations(artifact)
    assert visualizations == {f"{tmp_path / 'stored'}/{RECORD}/curves.png": VisualizationType.IMAGE}
    assert all(Path(file).is_file() for file in visualizations)
    assert materializer.extract_metadata(artifact) == {"train.loss": 1.0, "model.weights_hash": "abc"}

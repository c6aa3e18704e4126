"""A step that gets a skipped artifact skips itself, and equal skips are equal to the cache."""

from pathlib import Path
from typing import Annotated

from steps.artifacts.base import Artifact
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.materializers import FolderMaterializer
from steps.step import unless_skipped

DONE: list[str] = []


@unless_skipped
def trained(catalogue: CatalogueArtifact, settings: int, start: BundleArtifact | None = None) -> Annotated[BundleArtifact, "bundle"]:
    DONE.append(f"{settings}")
    return BundleArtifact(catalogue.folder)


def test_it_runs_where_there_is_something_to_do(tmp_path: Path) -> None:
    assert not trained(CatalogueArtifact(tmp_path), settings=3).skipped
    assert DONE.pop() == "3"


def test_an_input_that_was_skipped_skips_it_and_what_follows(tmp_path: Path) -> None:
    given = CatalogueArtifact.skip(tmp_path)
    for made in (
        trained(given, 3),
        trained(catalogue=given, settings=3),
        trained(CatalogueArtifact(tmp_path / "x"), 3, BundleArtifact.skip(tmp_path)),
    ):
        assert isinstance(made, BundleArtifact)
        assert made.skipped
        assert made.folder != tmp_path
    assert not DONE


def test_skips_are_equal_to_the_cache_and_unlike_anything_done(tmp_path: Path) -> None:
    keeper = FolderMaterializer(uri=str(tmp_path))
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    skips = {keeper.compute_content_hash(kind.skip(folder)) for kind, folder in zip((Artifact, CatalogueArtifact), folders, strict=False)}
    (folders[2] / "file").write_text("")
    assert len(skips) == 1
    assert keeper.compute_content_hash(Artifact(folders[2])) not in skips

"""The step decorator: ZenML's view of a step, output and reporter made for it, and skipping."""

import inspect
from pathlib import Path
from typing import Annotated

from zenml.steps.entrypoint_function_utils import validate_entrypoint_function

from deeprank.reporting import Record
from steps.artifacts.base import Artifact
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.cluster import cluster_step
from steps.materializers import FolderMaterializer
from steps.step import returning_artifact

CALLS: list[str] = []


@returning_artifact
def train(
    catalogue: CatalogueArtifact,
    settings: int,
    output: Annotated[BundleArtifact, "bundle"],
    reporter: Record,
    champion: BundleArtifact | None = None,
) -> None:
    CALLS.append(f"{settings}")
    # `note` would need an active MLflow run.
    reporter.notes["settings"] = str(settings)
    (output.folder / "weights").write_text(str(settings))


@returning_artifact
def write_page(catalogue: CatalogueArtifact, output: Annotated[Artifact, "page"]) -> None:
    (output.folder / "page.html").write_text("")


def skipped(artifact: Artifact) -> Artifact:
    artifact.folder.mkdir(exist_ok=True)
    artifact.skip()
    return artifact


def test_zenml_sees_the_inputs_and_the_named_output() -> None:
    definition = validate_entrypoint_function(train)
    assert list(definition.inputs) == ["catalogue", "settings", "champion"]
    (name, output), *others = definition.outputs.items()
    assert (name, output.resolved_annotation, others) == ("bundle", BundleArtifact, [])
    assert list(cluster_step.entrypoint_definition.outputs) == ["clusters"]


def test_zenml_hashes_the_source_of_the_step_function() -> None:
    assert "def cluster_step(" in cluster_step.source_code
    assert "def train(" in inspect.getsource(train)


def test_the_output_holds_what_the_step_wrote_and_reported(tmp_path: Path) -> None:
    output = train(CatalogueArtifact(tmp_path), settings=3)
    assert CALLS.pop() == "3"
    assert isinstance(output, BundleArtifact)
    assert (output.folder / "weights").read_text() == "3"
    assert output.record.notes == {"settings": "3"}
    assert not output.skipped


def test_a_step_without_a_reporter_has_no_record(tmp_path: Path) -> None:
    output = write_page(CatalogueArtifact(tmp_path))
    assert [file.name for file in output.folder.iterdir()] == ["page.html"]


def test_a_skipped_input_skips_the_step_and_those_after_it(tmp_path: Path) -> None:
    catalogue = skipped(CatalogueArtifact(tmp_path / "c"))
    for output in (
        train(catalogue, 3),
        train(catalogue=catalogue, settings=3),
        train(CatalogueArtifact(tmp_path / "x"), 3, champion=skipped(BundleArtifact(tmp_path / "b"))),
        train(CatalogueArtifact(tmp_path / "x"), 3, skipped(BundleArtifact(tmp_path / "b"))),
        write_page(catalogue),
    ):
        assert output.skipped
        assert output.folder.parent != tmp_path
        assert [file.name for file in output.folder.iterdir()] == ["skipped"]
    assert not CALLS


def test_a_skipped_output_has_the_type_of_the_step(tmp_path: Path) -> None:
    assert isinstance(train(skipped(CatalogueArtifact(tmp_path)), 3), BundleArtifact)


def test_skipped_outputs_have_equal_hashes_and_others_not(tmp_path: Path) -> None:
    materializer = FolderMaterializer(uri=str(tmp_path))
    hashes = {materializer.compute_content_hash(skipped(kind(tmp_path / kind.__name__))) for kind in (Artifact, CatalogueArtifact)}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    assert len(hashes) == 1
    assert materializer.compute_content_hash(Artifact(tmp_path / "other")) not in hashes

"""Model bundle → evaluation on the test split and on images of another kind, of the trained model and of the frozen one."""

from typing import Annotated

from deeprank.evaluation.bundle_evaluation import evaluate_bundle
from deeprank.reporting import Record
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.evaluation import EvaluationArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.step import pipeline_step


@pipeline_step(__file__)
def evaluate_step(
    catalogue: CatalogueArtifact,
    triplets: TripletsArtifact,
    bundle: BundleArtifact,
    other: CatalogueArtifact,
    output: Annotated[EvaluationArtifact, "evaluation"],
    reporter: Record,
) -> None:
    """Evaluate the trained model and the frozen one on the same queries."""
    other_kind = None if other.empty else other.open()
    evaluate_bundle(catalogue.open(), triplets.open(), bundle.open(), reporter, other_kind).save(output.folder)

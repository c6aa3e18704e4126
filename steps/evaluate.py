"""Model bundle → evaluation on the test split, beside the frozen net."""

from typing import Annotated

from deeprank.evaluation.bundle_evaluation import evaluate_bundle
from steps.artifacts.base import new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.evaluation import EvaluationArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked


@pipeline_step(__file__)
def evaluate_step(
    catalogue: CatalogueArtifact, triplets: TripletsArtifact, bundle: BundleArtifact
) -> Annotated[EvaluationArtifact, "evaluation"]:
    """Evaluate the trained net and the frozen one on the same queries."""
    folder = new_folder()
    reporter = Tracked(folder)
    evaluate_bundle(catalogue.open(), triplets.open(), bundle.open(), reporter).save(folder)
    reporter.save()
    return EvaluationArtifact(folder)

"""Model bundle → evaluation on the test split, beside the frozen net."""

from typing import Annotated

from zenml import step

from deeprank.evaluation.compare import evaluate_bundle
from steps.artifacts import BundleArtifact, CatalogueArtifact, EvaluationArtifact, TripletsArtifact, new_folder
from steps.caching import cache_on_sources
from steps.materializers import FolderMaterializer
from steps.tracking import SETTINGS, Tracked


@step(
    cache_policy=cache_on_sources(__file__),
    experiment_tracker=True,
    settings=SETTINGS,
    output_materializers=FolderMaterializer,
    name="evaluate",
)
def evaluate_step(
    catalogue: CatalogueArtifact, triplets: TripletsArtifact, bundle: BundleArtifact
) -> Annotated[EvaluationArtifact, "evaluation"]:
    """Evaluate the trained net and the frozen one on the same queries."""
    folder = new_folder()
    reporter = Tracked(folder)
    evaluate_bundle(catalogue.open(), triplets.open(), bundle.open(), reporter).save(folder)
    reporter.save()
    return EvaluationArtifact(folder)

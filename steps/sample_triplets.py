"""Catalogue → triplets."""

from typing import Annotated

from zenml import step

from deeprank.evaluation.figures import triplet_grid
from deeprank.triplets.sampling import SampleSettings, sample_triplets
from steps.artifacts import CatalogueArtifact, TripletsArtifact, new_folder
from steps.caching import cache_on_sources
from steps.materializers import FolderMaterializer
from steps.tracking import SETTINGS, Tracked


@step(
    cache_policy=cache_on_sources(__file__),
    experiment_tracker=True,
    settings=SETTINGS,
    output_materializers=FolderMaterializer,
    name="sample_triplets",
)
def sample_triplets_step(catalogue: CatalogueArtifact, settings: SampleSettings) -> Annotated[TripletsArtifact, "triplets"]:
    """Draw the triplets of every split."""
    folder = new_folder()
    reporter = Tracked(folder)
    photographs = catalogue.open()
    triplets = sample_triplets(photographs.frame, settings, photographs.fingerprint)
    for split, count in triplets.frame["split"].value_counts().items():
        reporter.metric(f"triplets.{split}", count)
    reporter.figure("triplet_grid", triplet_grid(photographs, triplets.of("train")))
    reporter.save()
    return TripletsArtifact.write(folder, triplets)

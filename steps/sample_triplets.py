"""Catalogue → triplets."""

from typing import Annotated

from deeprank.evaluation.figures import triplet_grid
from deeprank.triplets.sampling import SampleSettings, lonely, sample_triplets
from steps.artifacts.base import new_folder
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked


@pipeline_step(__file__)
def sample_triplets_step(catalogue: CatalogueArtifact, settings: SampleSettings) -> Annotated[TripletsArtifact, "triplets"]:
    """Draw the triplets of every split."""
    folder = new_folder()
    reporter = Tracked(folder)
    photographs = catalogue.open()
    triplets = sample_triplets(photographs.frame, settings, photographs.fingerprint)
    for split, count in triplets.frame["split"].value_counts().items():
        reporter.metric(f"triplets.{split}", count)
    reporter.metric("triplets.queries_without_positive", len(lonely(photographs.frame, settings)))
    reporter.figure("triplet_grid", triplet_grid(photographs, triplets.of("train")))
    reporter.save()
    return TripletsArtifact.write(folder, triplets)

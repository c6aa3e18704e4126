"""Catalogue → triplets."""

from typing import Annotated

from deeprank.plotting.evaluation import triplet_grid
from deeprank.triplets.sampling import SampleSettings, rows_without_positive, sample_triplets
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
    images = catalogue.open()
    triplets = sample_triplets(images.frame, settings, images.fingerprint)
    for split, count in triplets.frame["split"].value_counts().items():
        reporter.metric(f"triplets.{split}", count)
    reporter.metric("triplets.queries_without_positive", len(rows_without_positive(images.frame, settings)))
    reporter.figure("triplet_grid", triplet_grid(images, triplets.of("train")))
    reporter.save()
    return TripletsArtifact.write(folder, triplets)

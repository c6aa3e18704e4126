"""Catalogue → triplets."""

from typing import Annotated

from deeprank.plotting.images import triplet_grid
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, rows_without_positive, sample_triplets
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.step import pipeline_step


@pipeline_step(__file__)
def sample_triplets_step(
    catalogue: CatalogueArtifact, settings: SampleSettings, output: Annotated[TripletsArtifact, "triplets"], reporter: Record
) -> None:
    """Sample the triplets of every split."""
    opened = catalogue.open()
    triplets = sample_triplets(opened.frame, settings, opened.fingerprint)
    for split, count in triplets.frame["split"].value_counts().items():
        reporter.metric(f"triplets.{split}", count)
    reporter.metric("triplets.queries_without_positive", len(rows_without_positive(opened.frame, settings)))
    reporter.figure("triplet_grid", triplet_grid(opened, triplets.in_split("train")))
    output.write(triplets)

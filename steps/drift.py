"""Catalogue → drift: how far its new images lie from those that the champion was trained on."""

from typing import Annotated

from deeprank.registry.champion_drift import measure_champion_drift
from deeprank.reporting import Record
from steps.artifacts.base import Artifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step


# Never cached: the champion may have changed. The step embeds only new images.
@pipeline_step(__file__, enable_cache=False)
def drift_step(catalogue: CatalogueArtifact, name: str, output: Annotated[Artifact, "drift"], reporter: Record) -> None:  # noqa: ARG001
    """Compare the new images with those of the champion's catalogue."""
    measure_champion_drift(catalogue.open(), name, reporter)

"""Catalogue → how far what is new in it lies from what the champion was trained on."""

from typing import Annotated

from deeprank.registry.champion import champion_drift
from steps.artifacts.base import Artifact, new_folder
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked


# Always runs: the champion may have changed, and it costs what is new.
@pipeline_step(__file__, enable_cache=False)
def drift_step(catalogue: CatalogueArtifact, name: str) -> Annotated[Artifact, "drift"]:
    """Compare new images with the champion's."""
    folder = new_folder()
    reporter = Tracked(folder)
    champion_drift(catalogue.open(), name, reporter)
    reporter.save()
    return Artifact(folder)

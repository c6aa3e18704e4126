"""The champion's index brought up to date with the catalogue, as a new version of the release."""

import logging
from typing import Annotated

from deeprank.registry.register import RELEASE_CODE, refresh
from deeprank.registry.releases import find
from steps.artifacts.base import Artifact, new_folder
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked

logger = logging.getLogger(__name__)


# Always runs: who is champion is no input that a cache key could hold.
@pipeline_step(__file__, RELEASE_CODE, enable_cache=False)
def refresh_step(catalogue: CatalogueArtifact, name: str, champion_needed: bool = True) -> Annotated[Artifact, "refreshed"]:
    """Add what came, take out what is gone, register; without a champion: an error, or nothing, as was said."""
    folder = new_folder()
    reporter = Tracked(folder)
    registered = refresh(name, catalogue.open(), reporter) if champion_needed or find(name, "champion") else None
    said = f"registered {name} version {registered.version}: {registered.decision.reason}" if registered else "nothing to refresh"
    logger.info(said)
    reporter.note("refresh", said)
    reporter.save()
    return Artifact(folder)

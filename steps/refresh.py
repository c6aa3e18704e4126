"""Catalogue → a new version of the champion's release, its index brought up to date with the catalogue."""

import logging
from typing import Annotated

from deeprank.registry.refresh import refresh_champion
from deeprank.registry.register import RELEASE_CODE
from deeprank.registry.releases import find_version
from deeprank.reporting import Record
from steps.artifacts.base import Artifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step

logger = logging.getLogger(__name__)


# Never cached: the champion may have changed.
@pipeline_step(__file__, RELEASE_CODE, enable_cache=False)
def refresh_step(
    catalogue: CatalogueArtifact,
    name: str,
    output: Annotated[Artifact, "refreshed"],  # noqa: ARG001
    reporter: Record,
    require_champion: bool = True,
) -> None:
    """Add new images to the champion's index, remove lost ones, and register it; no champion is an error if `require_champion`."""
    registered = refresh_champion(name, catalogue.open(), reporter) if require_champion or find_version(name, "champion") else None
    result = f"registered {name} version {registered.version}: {registered.decision.reason}" if registered else "nothing to refresh"
    logger.info(result)
    reporter.note("refresh", result)

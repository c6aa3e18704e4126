"""Catalogue to train on → the champion's model bundle, from which the training starts; empty if there is no champion."""

import logging
import shutil
from typing import Annotated

from deeprank.registry.releases import find_version, open_version
from deeprank.reporting import Record
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step

logger = logging.getLogger(__name__)


# Never cached: the champion may have changed. The output is an artifact, not a name, so that the training's cache key holds the weights.
@pipeline_step(__file__, enable_cache=False)
def champion_step(
    catalogue: CatalogueArtifact,  # noqa: ARG001 if it was skipped, this step is skipped
    name: str,
    output: Annotated[BundleArtifact, "champion"],
    reporter: Record,
) -> None:
    """Copy the champion's bundle from the registry."""
    champion = find_version(name, "champion")
    if champion is not None:
        shutil.copytree(open_version(champion).bundle.folder, output.folder, dirs_exist_ok=True)
    init = f"champion, version {champion.version}" if champion else "pretrained, as there is no champion yet"
    logger.info("training starts from: %s", init)
    reporter.note("train.init", init)

"""Catalogue to train on → the model bundle that the training starts from: the champion's, or none where there is no champion."""

import logging
import shutil
from typing import Annotated

from deeprank.registry.releases import Release, fetch, find
from steps.artifacts.base import new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked

logger = logging.getLogger(__name__)


# Always runs: the champion may have changed. An artifact, not a name, so that the cache of the training knows whose weights it had.
@pipeline_step(__file__, enable_cache=False)
def champion_step(catalogue: CatalogueArtifact, name: str) -> Annotated[BundleArtifact, "champion"]:  # noqa: ARG001 it says whether to
    """Take the champion's bundle from the registry."""
    folder = new_folder()
    reporter = Tracked(folder)
    champion = find(name, "champion")
    if champion is not None:
        shutil.copytree(Release(fetch(champion)).bundle.folder, folder, dirs_exist_ok=True)
    start = f"champion, version {champion.version}" if champion else "scratch: there is no champion yet"
    logger.info("starting from %s", start)
    reporter.note("train.start", start)
    reporter.save()
    return BundleArtifact(folder)

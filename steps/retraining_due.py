"""Catalogue and drift → the same catalogue, if a training is due; else all that follows is skipped."""

import logging
from typing import Annotated

from deeprank.registry.retraining_due import RetrainingSettings, decide_retraining
from steps.artifacts.base import Artifact, new_folder
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked

logger = logging.getLogger(__name__)


# Always runs: time passes, and the registry may have changed.
@pipeline_step(__file__, enable_cache=False)
def retraining_due_step(
    catalogue: CatalogueArtifact, drift: Artifact, settings: RetrainingSettings, name: str
) -> Annotated[CatalogueArtifact, "due_catalogue"]:
    """Decide whether to train."""
    folder = new_folder()
    reporter, images = Tracked(folder), catalogue.open()
    figures = {point.name: point.value for point in drift.record.points}
    decided = decide_retraining(images, name, figures, settings, reporter)
    logger.info("%s: %s", "training is due" if decided.due else "no training is due, its steps are skipped", decided.reason)
    reporter.save()
    return CatalogueArtifact.write(folder, images) if decided.due else CatalogueArtifact.skip(folder)

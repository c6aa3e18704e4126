"""Catalogue and drift → the same catalogue if a training is due; otherwise the steps after this one are skipped."""

import logging
from typing import Annotated

from deeprank.registry.retraining_due import RetrainingSettings, decide_retraining
from deeprank.reporting import Record
from steps.artifacts.base import Artifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step

logger = logging.getLogger(__name__)


# Never cached: the decision depends on the time and on the registry.
@pipeline_step(__file__, enable_cache=False)
def retraining_due_step(
    catalogue: CatalogueArtifact,
    drift: Artifact,
    settings: RetrainingSettings,
    name: str,
    output: Annotated[CatalogueArtifact, "due_catalogue"],
    reporter: Record,
) -> None:
    """Decide whether to train."""
    images = catalogue.open()
    drift_metrics = {point.name: point.value for point in drift.record.points}
    decision = decide_retraining(images, name, drift_metrics, settings, reporter)
    logger.info("%s: %s", "training is due" if decision.due else "no training is due, its steps are skipped", decision.reason)
    if decision.due:
        output.write(images)
    else:
        output.skip()

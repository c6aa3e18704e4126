"""Folder of images → catalogue."""

import logging
from typing import Annotated

from zenml import get_step_context
from zenml.client import Client

from deeprank.data.ingest import IngestSettings, ingest, require_classes
from deeprank.data.sources import source_folder
from deeprank.plotting.evaluation import image_grid
from steps.artifacts.base import new_folder
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked, git_commit, log_parameters, settings_of

logger = logging.getLogger(__name__)


# Always runs: only looking at the folder can tell whether anything changed, and it costs what changed.
@pipeline_step(__file__, enable_cache=False)
def ingest_step(settings: IngestSettings) -> Annotated[CatalogueArtifact, "catalogue"]:
    """Bring the catalogue up to date."""
    log_parameters(settings_of(get_step_context().pipeline_run))
    folder = new_folder()
    reporter = Tracked(folder)
    reporter.note("git.commit", git_commit())
    source = source_folder(settings, logger.info)
    catalogue, report = ingest(source, settings, f"{Client().active_stack.artifact_store.path}/catalogues")
    logger.info("%d files: %s; %d read, %d gone", report.found, report.counts, report.read, report.removed)
    for remark in report.remarks[:20]:
        logger.warning(remark)
    require_classes(catalogue.frame, source)
    reporter.note("catalogue.source", str(source))
    reporter.note("catalogue.version", str(catalogue.version))
    reporter.note("catalogue.fingerprint", catalogue.fingerprint)
    for name, value in report.metrics().items():
        reporter.metric(f"data.{name}", value)
    reporter.figure("images", image_grid(catalogue))
    reporter.save()
    return CatalogueArtifact.write(folder, catalogue)

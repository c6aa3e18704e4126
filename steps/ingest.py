"""Folder of images → catalogue."""

import logging
from typing import Annotated

from zenml import get_step_context
from zenml.client import Client

from deeprank.data.ingest import IngestSettings, ingest, require_classes
from deeprank.data.sources import source_folder
from deeprank.plotting.images import image_grid
from deeprank.reporting import Record
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step
from steps.tracking import git_commit, log_parameters, settings_of

logger = logging.getLogger(__name__)
MIN_CLASSES = 2


# Never cached: the folder may have changed. The step reads only changed files.
@pipeline_step(__file__, enable_cache=False)
def ingest_step(settings: IngestSettings, output: Annotated[CatalogueArtifact, "catalogue"], reporter: Record) -> None:
    """Bring the catalogue up to date with the folder."""
    log_parameters(settings_of(get_step_context().pipeline_run))
    reporter.note("git.commit", git_commit())
    stack = Client().active_stack
    source = source_folder(settings, logger.info, allow_synthetic=stack.orchestrator.config.is_local)
    catalogue, report = ingest(source, settings, f"{stack.artifact_store.path}/catalogues", min_classes=MIN_CLASSES)
    logger.info("%d files: %s; %d read, %d removed", report.num_files, report.status_counts, report.num_read, report.num_removed)
    for message in report.messages:
        logger.warning(message)
    if len(report.details):
        reporter.attach("ingest_messages.csv", report.details.to_csv(index=False))
    require_classes(catalogue.frame, source)
    reporter.note("catalogue.source", str(source))
    reporter.note("catalogue.version", str(catalogue.version))
    reporter.note("catalogue.fingerprint", catalogue.fingerprint)
    for name, value in report.metrics().items():
        reporter.metric(f"data.{name}", value)
    reporter.figure("images", image_grid(catalogue))
    output.write(catalogue)

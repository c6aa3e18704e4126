"""Folder of images of another kind → its catalogue, which the evaluation and the gate read; empty if the config has no such folder."""

import logging
from typing import Annotated

from zenml.client import Client

from deeprank.data.object_store import folder_or_uri
from deeprank.evaluation.other_kind import EvaluateSettings, ingest_other_kind
from deeprank.reporting import Record
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step

logger = logging.getLogger(__name__)


# Never cached: the folder may have changed. The step reads only changed files.
@pipeline_step(__file__, enable_cache=False)
def ingest_other_step(
    catalogue: CatalogueArtifact,  # noqa: ARG001 if it was skipped, this step is skipped
    settings: EvaluateSettings,
    output: Annotated[CatalogueArtifact, "other"],
    reporter: Record,
) -> None:
    """Bring the catalogue of the folder `evaluate.other` up to date."""
    if not settings.other:
        return
    other = ingest_other_kind(folder_or_uri(settings.other), f"{Client().active_stack.artifact_store.path}/catalogues", logger.warning)
    reporter.note("other.source", settings.other)
    reporter.note("other.fingerprint", other.fingerprint)
    output.write(other)

"""The champion → whether the running service serves it."""

import logging
from typing import Annotated

from deeprank.reporting import Record
from deeprank.serving.check_service import ServiceSettings, check_service
from steps.artifacts.base import Artifact
from steps.step import pipeline_step

logger = logging.getLogger(__name__)


# Never cached: the service may have changed.
@pipeline_step(__file__, enable_cache=False)
def service_step(name: str, settings: ServiceSettings, output: Annotated[Artifact, "service"], reporter: Record) -> None:  # noqa: ARG001
    """Wait until the service serves the champion."""
    status = check_service(name, settings, reporter)
    logger.log(logging.WARNING if status.failed else logging.INFO, "service %s: %s", status.state, status.reason)

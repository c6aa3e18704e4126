"""The champion → whether a running service has taken it."""

import logging
from typing import Annotated

from deeprank.serving.check_service import ServiceSettings, check_service
from steps.artifacts.base import Artifact, new_folder
from steps.step import pipeline_step
from steps.tracking import Tracked

logger = logging.getLogger(__name__)


# Always runs: only asking the service can tell what it serves.
@pipeline_step(__file__, enable_cache=False)
def service_step(name: str, settings: ServiceSettings) -> Annotated[Artifact, "service"]:
    """Wait until the service serves the champion."""
    folder = new_folder()
    reporter = Tracked(folder)
    answer = check_service(name, settings, reporter)
    failed = answer.state in ("refused", "unreachable")
    logger.log(logging.WARNING if failed else logging.INFO, "service %s: %s", answer.state, answer.reason)
    reporter.save()
    return Artifact(folder)

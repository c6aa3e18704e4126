"""What every step has in common: its cache key, its MLflow run, how its output is kept, its name."""

import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, get_type_hints

from zenml import step
from zenml.steps import BaseStep

from steps.artifacts.base import Artifact, new_folder
from steps.caching import cache_on_sources
from steps.materializers import FolderMaterializer
from steps.tracking import SETTINGS

logger = logging.getLogger(__name__)


def pipeline_step(
    file: str, *also: Path, enable_cache: bool = True, told: Callable[[], str] | None = None
) -> Callable[[Callable[..., Any]], BaseStep]:
    """Make the function in a step's file a ZenML step of the file's name; its cache key holds its sources, those of `also`, and
    what `told` returns.
    """  # noqa: D205
    decorate = step(
        name=Path(file).stem,
        enable_cache=enable_cache,
        cache_policy=cache_on_sources(file, *also, told=told),
        experiment_tracker=True,
        settings=SETTINGS,
        output_materializers=FolderMaterializer,
    )
    return lambda function: decorate(unless_skipped(function))


def unless_skipped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a step whose input was skipped skip itself: a pipeline's graph is fixed before it runs, what is to be done is not."""

    @wraps(function)
    def skipping(*inputs: Any, **named: Any) -> Any:
        if any(isinstance(given, Artifact) and given.skipped for given in (*inputs, *named.values())):
            logger.info("skipped: a step before this one found nothing to do")
            return get_type_hints(function)["return"].skip(new_folder())
        return function(*inputs, **named)

    return skipping

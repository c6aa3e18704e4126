"""What every step has in common: its cache key, its MLflow run, how its output is kept, its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zenml import step
from zenml.steps import BaseStep

from steps.caching import cache_on_sources
from steps.materializers import FolderMaterializer
from steps.tracking import SETTINGS


def pipeline_step(file: str, *also: Path, enable_cache: bool = True) -> Callable[[Callable[..., Any]], BaseStep]:
    """Make the function in a step's file a ZenML step of the file's name; its cache key holds its sources and those of `also`."""
    return step(
        name=Path(file).stem,
        enable_cache=enable_cache,
        cache_policy=cache_on_sources(file, *also),
        experiment_tracker=True,
        settings=SETTINGS,
        output_materializers=FolderMaterializer,
    )

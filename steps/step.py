"""The decorator of every step: cache key, MLflow run, output artifact, reporter."""

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, get_args

from zenml import step
from zenml.steps import BaseStep

from deeprank.memory import release_freed_memory
from steps.artifacts.base import RECORD, Artifact, new_folder
from steps.caching import cache_on_sources
from steps.materializers import FolderMaterializer
from steps.storage_options import use_artifact_store
from steps.tracking import TRACKER_SETTINGS, MlflowReporter

logger = logging.getLogger(__name__)


def pipeline_step(
    file: str, *source_files: Path, enable_cache: bool = True, cache_func: Callable[[], str] | None = None
) -> Callable[[Callable[..., None]], BaseStep]:
    """Make a ZenML step of the function in a step's file; the step has the file's name.

    The function writes its result into `output`, an artifact with an empty folder, and reports to `reporter`. Both are made here
    and are not inputs of the ZenML step. The annotation of `output` is the type and the name of the step's output.

    Args:
        file: the step's module, `__file__`.
        source_files: files that the step uses by path instead of by import; they belong to the cache key.
        enable_cache: whether ZenML may take the output from its cache.
        cache_func: returns what else the result depends on; it belongs to the cache key.

    Returns:
        A decorator for functions `(*inputs, output: Annotated[Artifact type, "name"], reporter: Record) -> None`; `reporter` may be
        left out.

    """
    make_step = step(
        name=Path(file).stem,
        enable_cache=enable_cache,
        cache_policy=cache_on_sources(file, *source_files, cache_func=cache_func),
        experiment_tracker=True,
        settings=TRACKER_SETTINGS,
        output_materializers=FolderMaterializer,
    )
    return lambda function: make_step(returning_artifact(function))


def returning_artifact(function: Callable[..., None]) -> Callable[..., Any]:
    """Return the function that ZenML calls: it makes `output` and `reporter`, saves the reporter's record and returns the artifact.

    It skips the step if an input was skipped: a pipeline's graph is fixed before the run, the decision what to do is not.
    """
    signature = inspect.signature(function)
    output_annotation = signature.parameters["output"].annotation
    artifact_type: type[Artifact] = get_args(output_annotation)[0]
    has_reporter = "reporter" in signature.parameters

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Artifact:
        use_artifact_store()
        output = artifact_type(new_folder())
        if any(isinstance(value, Artifact) and value.skipped for value in (*args, *kwargs.values())):
            logger.info("skipped: an earlier step had nothing to do")
            output.skip()
        elif has_reporter:
            reporter = MlflowReporter(output.folder / RECORD)
            function(*args, output=output, reporter=reporter, **kwargs)
            reporter.save()
        else:
            function(*args, output=output, **kwargs)
        # The local orchestrator runs all steps in one process.
        release_freed_memory()
        return output

    inputs = [parameter for name, parameter in signature.parameters.items() if name not in ("output", "reporter")]
    # ZenML reads inputs and output from here.
    run.__signature__ = signature.replace(parameters=inputs, return_annotation=output_annotation)  # type: ignore[attr-defined]
    return run

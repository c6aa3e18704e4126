"""What all steps reported → one HTML page."""

from typing import Annotated

import mlflow
from zenml import get_step_context

from deeprank.report.report import write_report
from steps.artifacts.base import Artifact, new_folder
from steps.step import pipeline_step


# Always runs: it tells of this run, whichever of its steps came from the cache.
@pipeline_step(__file__, enable_cache=False)
def report_step(
    ingest: Artifact,
    leakage: Artifact,
    drift: Artifact,
    sample_triplets: Artifact,
    train: Artifact,
    evaluate: Artifact,
    cluster: Artifact,
    index: Artifact,
    register: Artifact,
) -> Annotated[Artifact, "report"]:
    """Write the report and keep it in the MLflow run."""
    told = [
        ("ingest", ingest.record),
        ("leakage", leakage.record),
        ("drift", drift.record),
        ("sample_triplets", sample_triplets.record),
        ("train", train.record),
        ("evaluate", evaluate.record),
        ("cluster", cluster.record),
        ("index", index.record),
        ("register", register.record),
    ]
    file = new_folder() / "report.html"
    write_report(file, f"deeprank, run {get_step_context().pipeline_run.name}", told)
    mlflow.log_artifact(str(file))
    return Artifact(file.parent)

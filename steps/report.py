"""Records of all steps → one HTML page."""

from typing import Annotated

import mlflow
from zenml import get_step_context

from deeprank.report.html_report import write_report
from steps.artifacts.base import Artifact
from steps.step import pipeline_step


# Never cached: the report is about this run, also if its steps came from the cache.
@pipeline_step(__file__, enable_cache=False)
def report_step(
    ingest: Artifact,
    leakage: Artifact,
    drift: Artifact,
    sample_triplets: Artifact,
    train: Artifact,
    evaluate: Artifact,
    ingest_other: Artifact,
    cluster: Artifact,
    index: Artifact,
    register: Artifact,
    output: Annotated[Artifact, "report"],
) -> None:
    """Write the report and log it to the MLflow run."""
    artifacts = {
        "ingest": ingest,
        "leakage": leakage,
        "drift": drift,
        "sample_triplets": sample_triplets,
        "train": train,
        "evaluate": evaluate,
        "ingest_other": ingest_other,
        "cluster": cluster,
        "index": index,
        "register": register,
    }
    records = [(name, artifact.record) for name, artifact in artifacts.items()]
    file = output.folder / "report.html"
    write_report(file, f"deeprank, run {get_step_context().pipeline_run.name}", records)
    mlflow.log_artifact(str(file))

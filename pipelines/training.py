"""The order of the steps, and nothing else."""

import warnings

from zenml.enums import ExecutionMode

from deeprank.data.ingest import IngestSettings
from deeprank.search.cluster import ClusterSettings
from deeprank.serving.registry import RegisterSettings
from deeprank.training.fit import TrainSettings
from deeprank.triplets.sampling import SampleSettings
from pipelines.strict import strict_pipeline
from steps.cluster import cluster_step
from steps.evaluate import evaluate_step
from steps.ingest import ingest_step
from steps.register import register_step
from steps.sample_triplets import sample_triplets_step
from steps.tracking import track_cached_steps
from steps.train import train_step

# Harmless: ZenML makes a pydantic model of the parameters, and every class has a method `register`.
warnings.filterwarnings("ignore", message='Field name "register"')


@strict_pipeline(on_cleanup=track_cached_steps, execution_mode=ExecutionMode.FAIL_FAST)
def training(
    ingest: IngestSettings = IngestSettings(),
    sample_triplets: SampleSettings = SampleSettings(),
    train: TrainSettings = TrainSettings(),
    cluster: ClusterSettings = ClusterSettings(),
    register: RegisterSettings = RegisterSettings(),
) -> None:
    """Ingest, sample, train, evaluate, cluster, register."""
    catalogue = ingest_step(ingest)
    triplets = sample_triplets_step(catalogue, sample_triplets)
    bundle = train_step(catalogue, triplets, train)
    evaluation = evaluate_step(catalogue, triplets, bundle)
    index = cluster_step(catalogue, bundle, cluster)
    register_step(catalogue, bundle, index, evaluation, register)

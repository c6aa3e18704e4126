"""The training pipeline: the order of its steps. `zenml pipeline run pipelines.training -c CONFIG`."""

import warnings

from zenml.enums import ExecutionMode

from deeprank.data.ingest import IngestSettings
from deeprank.evaluation.leakage import LeakageSettings
from deeprank.evaluation.other_kind import EvaluateSettings
from deeprank.registry.register import RegisterSettings
from deeprank.search.autotune import IndexSettings
from deeprank.search.clustering import ClusterSettings
from deeprank.serving.check_service import ServiceSettings
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import SampleSettings
from pipelines.strict import strict_pipeline
from steps.cluster import cluster_step
from steps.drift import drift_step
from steps.embed import embed_step
from steps.evaluate import evaluate_step
from steps.index import index_step
from steps.ingest import ingest_step
from steps.ingest_other import ingest_other_step
from steps.leakage import leakage_step
from steps.register import register_step
from steps.report import report_step
from steps.sample_triplets import sample_triplets_step
from steps.service import service_step
from steps.tracking import track_cached_steps
from steps.train import train_step

# Harmless: ZenML makes a pydantic model of the parameters, and pydantic models have a method `register`.
warnings.filterwarnings("ignore", message='Field name "register"')


@strict_pipeline(on_cleanup=track_cached_steps, execution_mode=ExecutionMode.FAIL_FAST)
def training(
    ingest: IngestSettings = IngestSettings(),
    leakage: LeakageSettings = LeakageSettings(),
    sample_triplets: SampleSettings = SampleSettings(),
    train: TrainSettings = TrainSettings(),
    evaluate: EvaluateSettings = EvaluateSettings(),
    cluster: ClusterSettings = ClusterSettings(),
    index: IndexSettings = IndexSettings(),
    register: RegisterSettings = RegisterSettings(),
    service: ServiceSettings = ServiceSettings(),
) -> None:
    """Ingest, check the splits, sample, train, embed, evaluate, cluster, index, register, report, check the running service."""
    ingested = ingest_step(ingest)
    catalogue = leakage_step(ingested, leakage)
    drift = drift_step(catalogue, register.name)
    triplets = sample_triplets_step(catalogue, sample_triplets)
    other = ingest_other_step(catalogue, evaluate)
    bundle = train_step(catalogue, triplets, train)
    embedded = embed_step(catalogue, bundle)
    evaluation = evaluate_step(catalogue, triplets, bundle, other, after=embedded)
    clusters = cluster_step(catalogue, bundle, cluster, after=embedded)
    searched = index_step(catalogue, bundle, clusters, index)
    release = register_step(ingested, catalogue, triplets, bundle, searched, evaluation, other, register)
    report = report_step(ingested, catalogue, drift, triplets, bundle, evaluation, other, clusters, searched, release)
    service_step(register.name, service, after=report)

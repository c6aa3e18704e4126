"""Train if a training is due, as `training` does; in any case, bring the champion's index up to date with the catalogue.

The graph is static, as some orchestrators run no other kind (Kubeflow, Airflow). If no training is due, the steps after
`retraining_due` are skipped, which takes a fraction of a second each.
"""

from zenml.enums import ExecutionMode

from deeprank.data.ingest import IngestSettings
from deeprank.evaluation.leakage import LeakageSettings
from deeprank.evaluation.other_kind import EvaluateSettings
from deeprank.registry.register import RegisterSettings
from deeprank.registry.retraining_due import RetrainingSettings
from deeprank.search.autotune import IndexSettings
from deeprank.search.clustering import ClusterSettings
from deeprank.serving.check_service import ServiceSettings
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import SampleSettings
from pipelines.strict import strict_pipeline
from steps.champion import champion_step
from steps.cluster import cluster_step
from steps.drift import drift_step
from steps.embed import embed_step
from steps.evaluate import evaluate_step
from steps.index import index_step
from steps.ingest import ingest_step
from steps.ingest_other import ingest_other_step
from steps.leakage import leakage_step
from steps.refresh import refresh_step
from steps.register import register_step
from steps.report import report_step
from steps.retraining_due import retraining_due_step
from steps.sample_triplets import sample_triplets_step
from steps.service import service_step
from steps.tracking import track_cached_steps
from steps.train import train_step


@strict_pipeline(on_cleanup=track_cached_steps, execution_mode=ExecutionMode.FAIL_FAST)
def retraining(
    ingest: IngestSettings = IngestSettings(),
    leakage: LeakageSettings = LeakageSettings(),
    retraining_due: RetrainingSettings = RetrainingSettings(),
    sample_triplets: SampleSettings = SampleSettings(),
    train: TrainSettings = TrainSettings(),
    evaluate: EvaluateSettings = EvaluateSettings(),
    cluster: ClusterSettings = ClusterSettings(),
    index: IndexSettings = IndexSettings(),
    register: RegisterSettings = RegisterSettings(),
    service: ServiceSettings = ServiceSettings(),
) -> None:
    """Ingest, check the splits, decide; sample, train, embed, evaluate, cluster, index, register, report; refresh, check the service."""
    ingested = ingest_step(ingest)
    checked = leakage_step(ingested, leakage)
    drift = drift_step(checked, register.name)
    catalogue = retraining_due_step(checked, drift, retraining_due, register.name)
    triplets = sample_triplets_step(catalogue, sample_triplets)
    other = ingest_other_step(catalogue, evaluate)
    if retraining_due.init == "champion":
        bundle = train_step(catalogue, triplets, train, champion_step(catalogue, register.name))
    else:
        bundle = train_step(catalogue, triplets, train)
    embedded = embed_step(catalogue, bundle)
    evaluation = evaluate_step(catalogue, triplets, bundle, other, after=embedded)
    clusters = cluster_step(catalogue, bundle, cluster, after=embedded)
    searched = index_step(catalogue, bundle, clusters, index)
    # `checked`, not `catalogue`: its record holds the leaks that were only warned about.
    release = register_step(ingested, checked, triplets, bundle, searched, evaluation, other, register)
    report = report_step(ingested, checked, drift, triplets, bundle, evaluation, other, clusters, searched, release)
    # If no training was due, or the gate held its release, the old champion's index gets the new images.
    refreshed = refresh_step(checked, register.name, require_champion=False, after=report)
    service_step(register.name, service, after=refreshed)

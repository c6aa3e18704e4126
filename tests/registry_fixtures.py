"""Fixtures and helpers: a registry with three releases, in a real MLflow store on SQLite."""

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.evaluation import MAIN_METRIC, Evaluation, evaluate
from deeprank.evaluation.gate import Decision, PromotionSettings, decide
from deeprank.models.bundle import Bundle
from deeprank.registry.canary import CANARY_FILE, write_canary
from deeprank.registry.register import Registered, RegisterSettings, register
from deeprank.registry.releases import Release
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.index_build import write_index
from deeprank.triplets.sampling import Triplets
from tests.conftest import save_untrained

NAME = "animals"


@dataclass(frozen=True)
class Store:
    """A registry: its MLflow experiment, and the folder, registered release and MLflow run of each release."""

    experiment: str
    folders: list[Path]
    registered: list[Registered]
    run_ids: list[str]


def _with_recall(evaluation: Evaluation, value: float) -> Evaluation:
    metric = dataclasses.replace(evaluation.metrics[MAIN_METRIC], value=value)
    return dataclasses.replace(evaluation, metrics=evaluation.metrics | {MAIN_METRIC: metric})


def make_release(folder: Path, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, recall: float) -> Path:
    """Write bundle/, index/ and evaluation/ as the pipeline does, with the given recall@1."""
    shutil.copytree(bundle.folder, folder / "bundle")
    write_index(folder / "index", bundle, catalogue, embeddings, cluster_embeddings(embeddings, ClusterSettings()))
    test_triplets = triplets.in_split("test")[["query", "positive", "negative"]].to_numpy()
    evaluation = evaluate(catalogue.frame, embeddings, catalogue.rows("test"), catalogue.rows("train"), test_triplets)
    _with_recall(evaluation, recall).save(folder / "evaluation")
    return folder


def make_release_with_canary(folder: Path, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets) -> Path:
    """Write a release with its canary, as the registry has it."""
    make_release(folder, catalogue, bundle, embeddings, triplets, 0.6)
    write_canary(Release(folder), folder / CANARY_FILE)
    return folder


def gate_decision(recall: float, champion_recall: float | None) -> Decision:
    """Return the gate's decision on 200 queries with the given recall@1 of challenger and champion (None: no champion)."""
    rows = np.arange(200)
    challenger, champion = (
        None if share is None else pd.DataFrame({"row": rows, "label": "a/b", MAIN_METRIC: (rows < 200 * share).astype(float)})
        for share in (recall, champion_recall)
    )
    return decide(challenger, champion, rows, PromotionSettings(floor=0.5))


def register_release(store: Store, name: str, decision: Decision, catalogue: Catalogue, folder: Path | None = None) -> Registered:
    """Register a release, by default the first of the store, under a name of the test's own."""
    with mlflow.start_run(experiment_id=store.experiment):
        return register(folder or store.folders[0], RegisterSettings(name=name), decision, catalogue, "card")


@pytest.fixture(scope="package")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty MLflow store and state folder."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPRANK_HOME", str(folder / "state"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        yield folder


@pytest.fixture(scope="package")
def store(
    tracking: Path, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, synthetic_folder: Path
) -> Store:
    """Three releases one after another: above the floor, below the champion, above the champion."""
    settings = RegisterSettings(name=NAME)
    experiment = mlflow.create_experiment("tests", (tracking / "artifacts").as_uri())
    folders, registered, run_ids = [], [], []
    for number, (recall, champion_recall) in enumerate(((0.6, None), (0.55, 0.6), (0.7, 0.6)), start=1):
        model = bundle if number < 3 else save_untrained(tracking / "third", seed=3)
        folders.append(make_release(tracking / f"release-{number}", catalogue, model, embeddings, triplets, recall))
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.set_tag("catalogue.source", str(synthetic_folder))
            registered.append(register(folders[-1], settings, gate_decision(recall, champion_recall), catalogue, f"card {number}"))
            run_ids.append(run.info.run_id)
    return Store(experiment, folders, registered, run_ids)

"""A registry of three releases, in a real MLflow store on SQLite."""

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
from deeprank.evaluation.evaluation import METRIC, Evaluation, evaluate
from deeprank.evaluation.gate import Decision, PromotionSettings, decide
from deeprank.models.bundle import Bundle
from deeprank.registry.canary import FILE, write_canary
from deeprank.registry.register import Registered, RegisterSettings, register
from deeprank.registry.releases import Release
from deeprank.search.clusters import ClusterSettings, cluster
from deeprank.search.index import Index
from deeprank.triplets.sampling import Triplets
from tests.conftest import save_untrained

NAME = "animals"


@dataclass(frozen=True)
class Store:
    """Release folders and what registering each of them came to."""

    experiment: str
    folders: list[Path]
    registered: list[Registered]
    run_ids: list[str]


def _with_recall(evaluation: Evaluation, value: float) -> Evaluation:
    metric = dataclasses.replace(evaluation.metrics[METRIC], value=value)
    return dataclasses.replace(evaluation, metrics=evaluation.metrics | {METRIC: metric})


def make_release(folder: Path, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, recall: float) -> Path:
    """Write bundle/, index/ and evaluation/ as the pipeline does, with a recall@1 of our choice."""
    shutil.copytree(bundle.folder, folder / "bundle")
    Index.build(folder / "index", bundle, catalogue, embeddings, cluster(embeddings, ClusterSettings()))
    drawn = triplets.of("test")[["query", "positive", "negative"]].to_numpy()
    evaluation = evaluate(catalogue.frame, embeddings, catalogue.rows("test"), catalogue.rows("train"), drawn)
    _with_recall(evaluation, recall).save(folder / "evaluation")
    return folder


def make_checked_release(folder: Path, catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets) -> Path:
    """Write a release with its canary, as the registry holds it."""
    make_release(folder, catalogue, bundle, embeddings, triplets, 0.6)
    write_canary(Release(folder), folder / FILE)
    return folder


def decision(new: float, old: float | None) -> Decision:
    """Return what the gate says of 200 queries of which the challenger gets a share of `new`, the champion one of `old`."""
    rows = np.arange(200)
    tables = [
        None if share is None else pd.DataFrame({"row": rows, "label": "a/b", METRIC: (rows < 200 * share).astype(float)})
        for share in (new, old)
    ]
    return decide(tables[0], tables[1], rows, PromotionSettings(floor=0.5))


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
    """Three releases in a row: above the floor, below the champion, above it."""
    settings = RegisterSettings(name=NAME)
    experiment = mlflow.create_experiment("tests", (tracking / "artifacts").as_uri())
    folders, registered, run_ids = [], [], []
    for number, (recall, before) in enumerate(((0.6, None), (0.55, 0.6), (0.7, 0.6)), start=1):
        model = bundle if number < 3 else save_untrained(tracking / "third", seed=3)
        folders.append(make_release(tracking / f"release-{number}", catalogue, model, embeddings, triplets, recall))
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.set_tag("catalogue.source", str(synthetic_folder))
            registered.append(register(folders[-1], settings, decision(recall, before), catalogue, f"card {number}"))
            run_ids.append(run.info.run_id)
    return Store(experiment, folders, registered, run_ids)


@pytest.fixture(scope="module")
def folder(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A release in a folder, with its canary."""
    return make_checked_release(tmp_path_factory.mktemp("served") / "release", catalogue, bundle, embeddings, triplets)

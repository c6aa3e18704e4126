"""Triplets → model bundle."""

from typing import Annotated

import pandas as pd
from zenml import get_step_context
from zenml.client import Client

from deeprank.data.object_store import is_remote
from deeprank.home import home
from deeprank.models.inference import require_gpus
from deeprank.plotting.training import curves
from deeprank.reporting import Record
from deeprank.training.fit import fit
from deeprank.training.settings import TrainSettings
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.step import pipeline_step


@pipeline_step(__file__)
def train_step(
    catalogue: CatalogueArtifact,
    triplets: TripletsArtifact,
    settings: TrainSettings,
    output: Annotated[BundleArtifact, "bundle"],
    reporter: Record,
    champion: BundleArtifact | None = None,
) -> None:
    """Fine-tune the model, from the champion's weights if a champion is given."""
    require_gpus(get_step_context().step_run.config.resource_settings.gpu_count or 0)
    init_bundle = champion.open() if champion and not champion.empty else None
    store = Client().active_stack.artifact_store.path
    checkpoints = f"{store}/checkpoints" if is_remote(store) else home() / "checkpoints"
    bundle = fit(catalogue.open(), triplets.open(), settings, output.folder, reporter, checkpoints, init_bundle)
    reporter.note("model.weights_hash", bundle.weights_hash)
    reporter.figure("curves", curves(pd.DataFrame(vars(point) for point in reporter.points)))

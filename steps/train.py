"""Triplets → model bundle."""

from typing import Annotated

import pandas as pd

from deeprank.home import home
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
    init_bundle = champion.open() if champion and not champion.empty else None
    bundle = fit(catalogue.open(), triplets.open(), settings, output.folder, reporter, home() / "checkpoints", init_bundle)
    reporter.note("model.weights_hash", bundle.weights_hash)
    reporter.figure("curves", curves(pd.DataFrame(vars(point) for point in reporter.points)))

"""Triplets → model bundle."""

from typing import Annotated

import pandas as pd

from deeprank.home import home
from deeprank.plotting.evaluation import curves
from deeprank.training.fit import TrainSettings, fit
from steps.artifacts.base import new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked


@pipeline_step(__file__)
def train_step(
    catalogue: CatalogueArtifact, triplets: TripletsArtifact, settings: TrainSettings, start: BundleArtifact | None = None
) -> Annotated[BundleArtifact, "bundle"]:
    """Fine-tune the net, from the weights of another bundle where one is given."""
    folder = new_folder()
    reporter = Tracked(folder)
    given = start.open() if start and not start.empty else None
    bundle = fit(catalogue.open(), triplets.open(), settings, folder, reporter, home() / "checkpoints", given)
    reporter.note("model.weights", bundle.weights_hash)
    reporter.figure("curves", curves(pd.DataFrame(vars(point) for point in reporter.points)))
    reporter.save()
    return BundleArtifact(folder)

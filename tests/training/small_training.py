"""A training of seconds."""

from pathlib import Path

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.reporting import MetricPoint, Record
from deeprank.training.fit import fit
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import Triplets

# A fixed precision, because a choice by speed may differ between runs; a random head, because the features are random.
SMALL = {
    "epochs": 1,
    "precision": "fp32",
    "init_head": "random",
    "train_image_sizes": (64,),
    "eval_image_size": 64,
    "classes_per_batch": 3,
    "images_per_class": 2,
}


def fit_small(catalogue: Catalogue, triplets: Triplets, folder: Path, **settings: object) -> tuple[Bundle, list[MetricPoint]]:
    """Train with small settings, changed by some, and return the bundle and the reported metrics."""
    record = Record(folder / "record")
    return fit(catalogue, triplets, TrainSettings(**SMALL | settings), folder / "bundle", record), record.points

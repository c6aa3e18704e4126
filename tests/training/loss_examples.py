"""Embeddings, labels, triplets and losses for tests of losses."""

import torch
from pytorch_metric_learning import losses, miners
from torch.nn.functional import normalize

from deeprank.training.losses import UNSUPPORTED, ComponentSettings, LossSettings, WeightedLosses

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
# Classes 0 and 1 have the same coarse class, class 2 has another one.
CLASS_CODES = torch.tensor([[0, 0], [0, 1], [1, 2]])
RELEVANCES = torch.tensor([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], dtype=torch.float64)
TRIPLETS = (torch.tensor([0, 0, 4, 8]), torch.tensor([1, 2, 3, 7]), torch.tensor([3, 6, 7, 0]))
LIBRARY_LOSSES = [name for name in dir(losses) if name.endswith("Loss") and name not in UNSUPPORTED]
MINERS = [name for name in dir(miners) if name.endswith("Miner") and name != "BaseMiner"]
REQUIRED_KWARGS = {"RankedListLoss": {"margin": 0.4, "Tn": 1.0}}
# The hinge on squared Euclidean distances, Wang et al. 2014, equation 3; in these tests a name beside those of losses.
HINGE = "hinge"


def unit_vectors(seed: int, n: int = 9, d: int = 6, spread: float = 1) -> torch.Tensor:
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(noise * spread + torch.eye(d, dtype=torch.float64)[0], dim=1)


def hinge_settings(margin: float = 0.2, reducer: str = "AvgNonZeroReducer", **others: object) -> LossSettings:
    kwargs = {"margin": margin, "reducer": reducer, "distance": ComponentSettings(name="LpDistance", kwargs={"power": 2})}
    return LossSettings(name="TripletMarginLoss", kwargs=kwargs, **others)


def loss_settings(name: str, **others: object) -> LossSettings:
    return hinge_settings(**others) if name == HINGE else LossSettings(name=name, kwargs=REQUIRED_KWARGS.get(name, {}), **others)


def weighted_losses(*settings: LossSettings, seed: int = 0) -> WeightedLosses:
    torch.manual_seed(seed)
    return WeightedLosses(settings, CLASS_CODES, 6)

"""Losses by name: every one of pytorch-metric-learning, and the paper's ranking hinge."""

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, field_validator
from pytorch_metric_learning import losses as library
from torch import Tensor, nn

from deeprank.errors import ConfigError
from deeprank.settings import Settings


class RankingHinge(nn.Module):
    """Mean over all triplets of a batch of max(0, gap + D(q, p) - D(q, n)), D = squared Euclidean distance.

    Source: Wang et al. 2014, equation 3, per triplet. Triplets are all (query, positive, negative) that the batch's
    classes make; those inside the gap alone count in the mean, so that a batch of easy triplets does not drown the rest.
    """

    def __init__(self, gap: float = 0.2) -> None:
        super().__init__()
        self.gap = gap

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of embeddings (n, d) of unit length with classes (n,)."""
        squared = 2 - 2 * embeddings @ embeddings.T
        same = labels[:, None] == labels[None, :]
        positive = same.clone().fill_diagonal_(False)
        hinge = (self.gap + squared[:, :, None] - squared[:, None, :]).relu()
        hinge = hinge * (positive[:, :, None] & ~same[:, None, :])
        return hinge.sum() / (hinge > 0).sum().clamp(min=1)


OWN: dict[str, type[nn.Module]] = {"RankingHinge": RankingHinge}


class LossSettings(Settings):
    """One loss of a weighted sum: a name of pytorch-metric-learning, or RankingHinge; its arguments; its weight."""

    name: str = "SupConLoss"
    arguments: dict[str, float | int | bool | str] = Field(default_factory=dict)
    weight: float = Field(1.0, gt=0)

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        names = [*OWN, *(other for other in dir(library) if other.endswith("Loss"))]
        if name not in names:
            near = difflib.get_close_matches(name, names, 3)
            raise ValueError(f"there is no loss {name}" + (f"; nearest: {', '.join(near)}" if near else f"; there are {', '.join(names)}"))
        return name


class WeightedLosses(nn.Module):
    """The weighted sum of losses of (embeddings, labels)."""

    def __init__(self, settings: Sequence[LossSettings], classes: int, dimensions: int) -> None:
        super().__init__()
        self.losses = nn.ModuleList(create_loss(one, classes, dimensions) for one in settings)
        self.weights = [one.weight for one in settings]

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the sum for embeddings (n, d) of unit length with classes (n,)."""
        return torch.stack([weight * loss(embeddings, labels) for weight, loss in zip(self.weights, self.losses, strict=True)]).sum()


def create_loss(settings: LossSettings, classes: int, dimensions: int) -> nn.Module:
    """Return the loss that the settings name, as a module of (embeddings, labels).

    Args:
        settings: name and arguments.
        classes: how many there are; goes to losses that keep a vector a class.
        dimensions: of the embedding, for the same.

    Raises:
        ConfigError: arguments that the loss does not take.

    """
    kind = OWN.get(settings.name) or getattr(library, settings.name)
    takes = {name for base in kind.__mro__ if "__init__" in vars(base) for name in inspect.signature(vars(base)["__init__"]).parameters}
    given: dict[str, Any] = {"num_classes": classes, "embedding_size": dimensions}
    arguments = {key: value for key, value in given.items() if key in takes} | settings.arguments
    try:
        loss: nn.Module = kind(**arguments)
    except TypeError as error:
        raise ConfigError(f"train.losses: arguments of {settings.name}: {error}") from None
    return loss

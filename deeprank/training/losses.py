"""Losses by name: every one of pytorch-metric-learning that takes labels, with its miners and memory, and three of our own."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from pydantic import Field, field_validator, model_validator
from pytorch_metric_learning import distances, miners, reducers, regularizers
from pytorch_metric_learning import losses as library
from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_triplets
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from deeprank.errors import ConfigError
from deeprank.settings import Settings

# Kwargs of losses and miners that are objects of pytorch-metric-learning themselves.
PARTS = {"distance": distances, "reducer": reducers, "embedding_regularizer": regularizers, "weight_regularizer": regularizers}


class PartSettings(Settings):
    """A distance, reducer or regularizer of pytorch-metric-learning by name, and its kwargs."""

    name: str
    kwargs: dict[str, float | int | bool | str] = Field(default_factory=dict)


Kwargs = dict[str, float | int | bool | str | list[float] | PartSettings]


class RankingHinge(nn.Module):
    """Mean over triplets of max(0, margin + D(q, p) - D(q, n)), D = squared Euclidean distance.

    Source: Wang et al. 2014, equation 3, per triplet. The mean is over those inside the margin (avg_non_zero), so that easy
    triplets do not drown the rest, or over all (mean).
    """

    def __init__(self, margin: float = 0.2, reduction: str = "avg_non_zero") -> None:
        super().__init__()
        if reduction not in ("avg_non_zero", "mean"):
            raise ValueError(f"reduction is avg_non_zero or mean, not {reduction}")
        self.margin, self.reduction = margin, reduction

    def forward(self, embeddings: Tensor, labels: Tensor, triplets: tuple[Tensor, ...] | None = None) -> Tensor:
        """Return the loss of embeddings (n, d) of unit length with classes (n,), over `triplets` or all that the classes make."""
        query, positive, negative = convert_to_triplets(triplets, labels, t_per_anchor="all")
        squared = 2 - 2 * embeddings @ embeddings.T
        hinge = (self.margin + squared[query, positive] - squared[query, negative]).relu()
        counted = hinge > 0 if self.reduction == "avg_non_zero" else torch.ones_like(hinge)
        return hinge.sum() / counted.sum().clamp(min=1)


class GradedHinge(nn.Module):
    """Mean over active (q, a, b), r(q, a) > r(q, b), of max(0, margin * (r(q, a) - r(q, b)) + D(q, a) - D(q, b)).

    r is the relevance, D the squared Euclidean distance: Wang et al. 2014, equation 3, with a margin as wide as the difference
    in relevance, so that a cousin comes to lie nearer than a stranger, and not as near as a sibling.
    """

    relevances: Tensor

    def __init__(self, relevances: Tensor, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin
        self.register_buffer("relevances", relevances, persistent=False)

    def forward(self, embeddings: Tensor, labels: Tensor, triplets: tuple[Tensor, ...] | None = None) -> Tensor:
        """Return the loss of embeddings (n, d) of unit length with classes (n,), over `triplets` or all (q, a, b) of the batch."""
        relevance = self.relevances[labels[:, None], labels]
        # margin * (r(q, a) - r(q, b)) + D(q, a) - D(q, b) is a difference of two such terms.
        term = self.margin * relevance + 2 - 2 * embeddings @ embeddings.T
        if triplets is None:
            other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
            ranked = (relevance[:, :, None] > relevance[:, None, :]) & other[:, :, None] & other[:, None, :]
            hinge = (term[:, :, None] - term[:, None, :]).relu() * ranked
        else:
            query, nearer, farther = convert_to_triplets(triplets, labels)
            hinge = (term[query, nearer] - term[query, farther]).relu()
        return hinge.sum() / (hinge > 0).sum().clamp(min=1)


class CosineSoftmax(nn.Module):
    """Smoothed softmax cross entropy of the cosines to one proxy a class, of which the right one has to win by a margin.

    Source: CosFace, Wang et al. 2018, equation 4; label smoothing, Szegedy et al. 2016. `scale` multiplies the cosines.
    """

    def __init__(self, num_classes: int, embedding_size: int, scale: float = 16, margin: float = 0.1, smoothing: float = 0.1) -> None:
        super().__init__()
        self.scale, self.margin, self.smoothing = scale, margin, smoothing
        self.proxies = nn.Parameter(normalize(torch.randn(num_classes, embedding_size), dim=1))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of embeddings (n, d) of unit length with classes (n,)."""
        cosine = embeddings @ normalize(self.proxies, dim=1).T
        right = one_hot(labels, len(self.proxies)).to(cosine.dtype)
        return cross_entropy(self.scale * (cosine - self.margin * right), labels, label_smoothing=self.smoothing)


class _Memory(library.CrossBatchMemory):  # type: ignore[misc]
    """A loss of a batch against the embeddings of the last ones as well (Wang et al. 2020, XBM), which a checkpoint restores."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if len(embeddings) > self.memory_size:
            raise ConfigError(f"train.losses: a memory of {self.memory_size} does not hold a batch of {len(embeddings)}; make it larger")
        loss: Tensor = super().forward(embeddings, labels)
        return loss

    # The library saves what is remembered, but not how much of it is filled and where the next batch goes.
    def get_extra_state(self) -> dict[str, int]:
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.queue_idx, self.has_been_filled = state["queue_idx"], state["has_been_filled"]


class _DynamicSoftMarginLoss(library.DynamicSoftMarginLoss):  # type: ignore[misc]
    """The library's keeps the last batch's graph in its histogram, so that the second batch fails, and does not save it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("hist_", self.__dict__.pop("hist_"))

    def update_histogram(self, data: Tensor) -> None:
        super().update_histogram(data.detach())


CUSTOM_LOSSES: dict[str, type[nn.Module]] = {"RankingHinge": RankingHinge, "GradedHinge": GradedHinge, "CosineSoftmax": CosineSoftmax}
PATCHED: dict[str, type[nn.Module]] = {"DynamicSoftMarginLoss": _DynamicSoftMarginLoss}
UNSUPPORTED = {
    "GenericPairLoss": "is only a base of others",
    "ManifoldLoss": "takes no labels",
    "SelfSupervisedLoss": "takes no labels",
    "SmoothAPLoss": "is wrong in pytorch-metric-learning 2.9 unless a batch has as many classes as images of each",
    "VICRegLoss": "takes no labels",
}
# These compare each image with all others, or with vectors that stand for classes, and refuse triplets and miners.
NO_MINER = frozenset({"CosineSoftmax", "InstanceLoss", "P2SGradLoss", "PNPLoss", "RankedListLoss"})
# Triplets say nothing to these either; a miner says how much each image weighs.
WEIGHING = frozenset({"ArcFaceLoss", "CosFaceLoss", "FastAPLoss", "LargeMarginSoftmaxLoss", "NCALoss", "NormalizedSoftmaxLoss"})
WEIGHING |= {"ProxyAnchorLoss", "ProxyNCALoss", "SoftTripleLoss", "SphereFaceLoss", "SubCenterArcFaceLoss"}
LABELS_ONLY = NO_MINER | WEIGHING
# With a memory, NCALoss counts each image as its own nearest, and LiftedStructureLoss takes places in it for places in the batch.
WITH_MEMORY = sorted({*library.CrossBatchMemory.supported_losses()} - {"NCALoss", "LiftedStructureLoss"})


def _known(what: str, name: str, names: list[str]) -> str:
    if name not in names:
        near = difflib.get_close_matches(name, names, 3)
        raise ValueError(f"there is no {what} {name}" + (f"; nearest: {', '.join(near)}" if near else f"; there are {', '.join(names)}"))
    return name


class MinerSettings(Settings):
    """Which triplets or pairs of a batch count: a miner of pytorch-metric-learning by name, and its kwargs."""

    name: str
    kwargs: Kwargs = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        return _known("miner", name, [other for other in dir(miners) if other.endswith("Miner") and other != "BaseMiner"])


class LossSettings(Settings):
    """One loss of a weighted sum.

    Attributes:
        name: of pytorch-metric-learning, or RankingHinge, GradedHinge, CosineSoftmax.
        kwargs: of the loss; what it takes of classes, dimensions and relevances is given to it. A distance, reducer,
            embedding_regularizer or weight_regularizer is its name, or a name with kwargs.
        weight: of the loss in the sum.
        miner: picks the triplets or pairs that count; without one, all that the classes of a batch make do.
        memory: a batch is compared with so many embeddings of the last batches, its own among them; 0: with its own alone.

    """

    name: str = "SupConLoss"
    kwargs: Kwargs = Field(default_factory=dict)
    weight: float = Field(1.0, gt=0)
    miner: MinerSettings | None = None
    memory: int = Field(0, ge=0)

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name in UNSUPPORTED:
            raise ValueError(f"{name} {UNSUPPORTED[name]}")
        return _known(
            "loss", name, [*CUSTOM_LOSSES, *(other for other in dir(library) if other.endswith("Loss") and other not in UNSUPPORTED)]
        )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.miner and self.name in NO_MINER:
            raise ValueError(f"{self.name} takes no miner")
        if self.memory and self.name not in WITH_MEMORY:
            raise ValueError(f"{self.name} cannot use a memory; these can: {', '.join(WITH_MEMORY)}")
        if self.memory and self.kwargs.get("swap"):
            raise ValueError(f"{self.name} cannot swap with a memory")
        easy = self.miner and self.miner.name == "BatchEasyHardMiner" and self.miner.kwargs.get("pos_strategy", "easy") == "easy"
        if self.memory and easy:
            raise ValueError("with a memory, the easiest positive of an image is itself; give BatchEasyHardMiner another pos_strategy")
        return self


class WeightedLosses(nn.Module):
    """The weighted sum of losses.

    Args:
        settings: of each.
        relevances: of two classes, (classes, classes).
        dimensions: of the embeddings.

    Raises:
        ConfigError: kwargs that a loss or miner does not take.

    """

    def __init__(self, settings: Sequence[LossSettings], relevances: Tensor, embedding_dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.losses = nn.ModuleList(create_loss(one, relevances, embedding_dim) for one in settings)
        # A memory mines by itself, among what it remembers.
        self.miners = [create_miner(one.miner) if one.miner and not one.memory else None for one in settings]

    def forward(self, embeddings: Tensor, labels: Tensor, triplets: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """Return the sum for embeddings (n, d) of unit length with classes (n,).

        `triplets` are places (query, positive, negative) in the batch; losses with nothing to do with triplets go by the
        classes. Without them, each loss takes those of its miner, or all that the classes make.

        Raises:
            ConfigError: triplets for a loss that has a miner or a memory to pick its own; a batch larger than a memory.

        """
        total = embeddings.new_zeros(())
        for one, loss, miner in zip(self.settings, self.losses, self.miners, strict=True):
            if triplets is not None and (one.miner or one.memory):
                raise ConfigError(f"train.losses: {one.name} is given triplets, and has a miner or a memory to pick others; remove one")
            if triplets is not None and one.name not in LABELS_ONLY:
                total = total + one.weight * loss(embeddings, labels, triplets)
            elif miner is not None:
                total = total + one.weight * loss(embeddings, labels, miner(embeddings, labels))
            else:
                total = total + one.weight * loss(embeddings, labels)
        return total

    @torch.no_grad()
    def start_from(self, centers: Tensor) -> None:
        """Set the vectors of losses that keep one a class to the class centers (classes, dimensions), made unit length."""
        for loss in self.losses:
            for name, parameter in loss.named_parameters():
                vectors = {"proxies": parameter, "W": parameter.T, "weight": parameter.T}.get(name)
                # SubCenterArcFaceLoss has several a class.
                if vectors is not None and len(vectors) == len(centers):
                    vectors.copy_(normalize(centers, dim=1))


def create_loss(settings: LossSettings, relevances: Tensor, embedding_dim: int) -> nn.Module:
    """Return the loss that the settings name, as a module of (embeddings, labels[, triplets]), in its memory if it has one.

    Args:
        settings: name, kwargs and memory.
        relevances: of two classes, (classes, classes); they, and how many classes there are, go to losses that take them.
        dimensions: of the embedding, for the same.

    Raises:
        ConfigError: kwargs that the loss or its miner does not take.

    """
    kind = CUSTOM_LOSSES.get(settings.name) or PATCHED.get(settings.name) or getattr(library, settings.name)
    takes = {name for base in kind.__mro__ if "__init__" in vars(base) for name in inspect.signature(vars(base)["__init__"]).parameters}
    given = {"num_classes": len(relevances), "embedding_size": embedding_dim, "descriptors_dim": embedding_dim, "relevances": relevances}
    loss = _create(kind, settings.name, {key: value for key, value in given.items() if key in takes} | settings.kwargs)
    if not settings.memory:
        return loss
    return _Memory(loss, embedding_dim, settings.memory, settings.miner and create_miner(settings.miner))


def create_miner(settings: MinerSettings) -> nn.Module:
    """Return the miner that the settings name, as a module of (embeddings, labels).

    Raises:
        ConfigError: kwargs that the miner does not take.

    """
    return _create(getattr(miners, settings.name), settings.name, settings.kwargs)


def _create(kind: type[nn.Module], name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        return kind(**{key: _part(key, value) if key in PARTS else value for key, value in kwargs.items()})
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"train.losses: kwargs of {name}: {error}") from None


def _part(what: str, given: str | PartSettings) -> object:
    part = PartSettings(name=given) if isinstance(given, str) else given
    known = [name for name, kind in vars(PARTS[what]).items() if isinstance(kind, type) and not name.startswith("Base")]
    return getattr(PARTS[what], _known(what, part.name, known))(**part.kwargs)

"""Losses by name: those of pytorch-metric-learning that use labels, with miners and memory, and two of this project."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from pydantic import Field, field_validator, model_validator
from pytorch_metric_learning import distances, miners, reducers, regularizers
from pytorch_metric_learning import losses as library
from torch import Tensor, nn
from torch.nn.functional import normalize

from deeprank.errors import ConfigError
from deeprank.settings import Settings
from deeprank.training.custom_losses import CosineSoftmax, DynamicSoftMarginLoss, GradedHinge, MemoryLoss
from deeprank.training.names import require_name

CUSTOM_LOSSES: dict[str, type[nn.Module]] = {"GradedHinge": GradedHinge, "CosineSoftmax": CosineSoftmax}
PATCHED: dict[str, type[nn.Module]] = {"DynamicSoftMarginLoss": DynamicSoftMarginLoss}
UNSUPPORTED = {
    "GenericPairLoss": "is only a base class",
    "ManifoldLoss": "takes no labels",
    "SelfSupervisedLoss": "takes no labels",
    "SmoothAPLoss": "is wrong in pytorch-metric-learning 2.9 unless a batch has as many classes as images of each",
    "VICRegLoss": "takes no labels",
}
# These compare an image with all others or with class weights (proxies), and accept neither triplets nor miners.
NO_MINER = frozenset({"CosineSoftmax", "InstanceLoss", "P2SGradLoss", "PNPLoss", "RankedListLoss"})
# These do not use triplets either; a miner gives them weights of images.
WEIGHTED_BY_MINER = frozenset({"ArcFaceLoss", "CosFaceLoss", "FastAPLoss", "LargeMarginSoftmaxLoss", "NCALoss", "NormalizedSoftmaxLoss"})
WEIGHTED_BY_MINER |= {"ProxyAnchorLoss", "ProxyNCALoss", "SoftTripleLoss", "SphereFaceLoss", "SubCenterArcFaceLoss"}
LABELS_ONLY = NO_MINER | WEIGHTED_BY_MINER
# With a memory, NCALoss takes each image as its own nearest neighbor, and LiftedStructureLoss mixes up positions in memory and batch.
WITH_MEMORY = sorted({*library.CrossBatchMemory.supported_losses()} - {"NCALoss", "LiftedStructureLoss"})
# Kwargs of losses and miners that are objects of pytorch-metric-learning, and the modules with their classes.
COMPONENT_MODULES = {
    "distance": distances,
    "reducer": reducers,
    "embedding_regularizer": regularizers,
    "weight_regularizer": regularizers,
}


class ComponentSettings(Settings):
    """A distance, reducer or regularizer of pytorch-metric-learning by name, and its kwargs."""

    name: str
    kwargs: dict[str, float | int | bool | str] = Field(default_factory=dict)


Kwargs = dict[str, float | int | bool | str | list[float] | ComponentSettings]


class MinerSettings(Settings):
    """A miner of pytorch-metric-learning by name, and its kwargs; it selects pairs or triplets of a batch.

    Attributes:
        name: name of the miner, e.g. MultiSimilarityMiner.
        kwargs: keyword arguments of the miner.

    """

    name: str
    kwargs: Kwargs = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _require_miner(cls, name: str) -> str:
        return require_name("miner", name, [other for other in dir(miners) if other.endswith("Miner") and other != "BaseMiner"])


class LossSettings(Settings):
    """One loss of a weighted sum.

    Attributes:
        name: name of a loss of pytorch-metric-learning, GradedHinge, or CosineSoftmax (CosFace with label smoothing).
        kwargs: keyword arguments of the loss, without those that depend on the data (number of classes, embedding_dim, class_codes). A
            distance, reducer, embedding_regularizer or weight_regularizer is given by name, or as name and kwargs.
        weight: factor of the loss in the sum.
        miner: selects pairs or triplets of a batch; None: all that the labels of the batch allow.
        memory: number of embeddings of the last batches, this one included, that a batch is compared with; 0: no memory.

    """

    name: str = "SupConLoss"
    kwargs: Kwargs = Field(default_factory=dict)
    weight: float = Field(1.0, gt=0)
    miner: MinerSettings | None = None
    memory: int = Field(0, ge=0)

    @field_validator("name")
    @classmethod
    def _require_loss(cls, name: str) -> str:
        if name in UNSUPPORTED:
            raise ValueError(f"{name} {UNSUPPORTED[name]}")
        from_library = [other for other in dir(library) if other.endswith("Loss") and other not in UNSUPPORTED]
        return require_name("loss", name, [*CUSTOM_LOSSES, *from_library])

    @model_validator(mode="after")
    def _require_compatible(self) -> Self:
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
        settings: of each loss.
        class_codes: (classes, depth) of each class, see `encode_hierarchy`.
        embedding_dim: of the embeddings.

    Raises:
        ConfigError: a loss or miner does not take its kwargs.

    """

    def __init__(self, settings: Sequence[LossSettings], class_codes: Tensor, embedding_dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.losses = nn.ModuleList(create_loss(loss_settings, class_codes, embedding_dim) for loss_settings in settings)
        # A memory applies its miner itself, to the embeddings that it stores.
        self.miners = [create_miner(s.miner) if s.miner and not s.memory else None for s in settings]

    def forward(self, embeddings: Tensor, labels: Tensor, triplets: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """Return the sum of the losses of a batch.

        Args:
            embeddings: (n, d) of unit length.
            labels: (n,) class numbers.
            triplets: positions (query, positive, negative) in the batch, for the losses that use triplets; None: each loss uses the
                selection of its miner, or all that the labels allow.

        Raises:
            ConfigError: triplets are given, but a loss has a miner or a memory; or a batch is larger than a memory.

        """
        total = embeddings.new_zeros(())
        for settings, loss, miner in zip(self.settings, self.losses, self.miners, strict=True):
            if triplets is not None and (settings.miner or settings.memory):
                raise ConfigError(f"train.losses: {settings.name} gets triplets, but its miner or memory selects others; remove one")
            if triplets is not None and settings.name not in LABELS_ONLY:
                total = total + settings.weight * loss(embeddings, labels, triplets)
            elif miner is not None:
                total = total + settings.weight * loss(embeddings, labels, miner(embeddings, labels))
            else:
                total = total + settings.weight * loss(embeddings, labels)
        return total

    @torch.no_grad()
    def init_class_vectors(self, centers: Tensor) -> None:
        """Set the class weights (proxies) of losses with one per class to the class centers (classes, d), scaled to unit length."""
        for loss in self.losses:
            for name, parameter in loss.named_parameters():
                vectors = {"proxies": parameter, "W": parameter.T, "weight": parameter.T}.get(name)
                # SubCenterArcFaceLoss has several proxies per class.
                if vectors is not None and len(vectors) == len(centers):
                    vectors.copy_(normalize(centers, dim=1))


def create_loss(settings: LossSettings, class_codes: Tensor, embedding_dim: int) -> nn.Module:
    """Return a loss by name, a module with inputs (embeddings, labels[, triplets]), inside a memory if the settings have one.

    Args:
        settings: name, kwargs and memory.
        class_codes: (classes, depth) of each class, see `encode_hierarchy`; they and their number go to losses that take them.
        embedding_dim: of the embeddings, for the same.

    Raises:
        ConfigError: the loss or its miner does not take its kwargs.

    """
    cls = CUSTOM_LOSSES.get(settings.name) or PATCHED.get(settings.name) or getattr(library, settings.name)
    accepted = {name for base in cls.__mro__ if "__init__" in vars(base) for name in inspect.signature(vars(base)["__init__"]).parameters}
    data = {"num_classes": len(class_codes), "embedding_size": embedding_dim, "descriptors_dim": embedding_dim, "class_codes": class_codes}
    loss = _create(cls, settings.name, {key: value for key, value in data.items() if key in accepted} | settings.kwargs)
    if not settings.memory:
        return loss
    return MemoryLoss(loss, embedding_dim, settings.memory, settings.miner and create_miner(settings.miner))


def create_miner(settings: MinerSettings) -> nn.Module:
    """Return a miner by name, a module with inputs (embeddings, labels).

    Raises:
        ConfigError: the miner does not take its kwargs.

    """
    return _create(getattr(miners, settings.name), settings.name, settings.kwargs)


def _create(cls: type[nn.Module], name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        return cls(**{key: _create_component(key, value) if key in COMPONENT_MODULES else value for key, value in kwargs.items()})
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"train.losses: kwargs of {name}: {error}") from None


def _create_component(kind: str, value: str | ComponentSettings) -> object:
    component = ComponentSettings(name=value) if isinstance(value, str) else value
    module = COMPONENT_MODULES[kind]
    names = [name for name, cls in vars(module).items() if isinstance(cls, type) and not name.startswith("Base")]
    return getattr(module, require_name(kind, component.name, names))(**component.kwargs)

"""Optimizers of torch.optim and learning rate schedules of torch and timm by name, and the groups of parameters."""

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import timm.scheduler
import torch
from pydantic import Field, field_validator, model_validator
from timm.scheduler.scheduler import Scheduler as TimmScheduler
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from deeprank.errors import ConfigError
from deeprank.models.embedding_model import EmbeddingModel
from deeprank.settings import Settings
from deeprank.training.names import require_name

Kwargs = dict[str, float | int | bool | str | list[int] | list[float] | None]
ParameterGroups = list[dict[str, Any]]

UNSUPPORTED = {
    "LBFGS": "takes only one group of parameters",
    "Muon": "takes no biases",
    "SparseAdam": "takes only sparse gradients",
    "ChainedScheduler": "takes other schedules, which a config cannot give",
    "LambdaLR": "takes a function, which a config cannot give",
    "MultiplicativeLR": "takes a function, which a config cannot give",
    "PlateauLRScheduler": "does not save its state, so that a training cannot be resumed; use ReduceLROnPlateau",
    "SequentialLR": "takes other schedules, which a config cannot give",
}
# Kwargs that are set by another setting.
SET_BY = {
    "params": "train.model",
    "lr": "train.learning_rate and train.head_learning_rate",
    "weight_decay": "train.weight_decay",
    "optimizer": "train.optimizer",
    "t_in_epochs": "train.scheduler.interval",
}


class WarmupCosine(lr_scheduler.LambdaLR):
    """Schedule in which the learning rates rise linearly to their maximum and then fall to 0 along half a cosine.

    Args:
        optimizer: whose learning rates are set.
        total_steps: number of steps of the training.
        warmup_ratio: share of the steps in which the learning rates rise; at least 0, less than 1.

    Raises:
        ValueError: warmup_ratio is out of range.

    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_ratio: float = 0.05) -> None:
        if not 0 <= warmup_ratio < 1:
            raise ValueError(f"warmup_ratio is {warmup_ratio}; it must be at least 0 and less than 1")
        warmup_steps = max(1, round(total_steps * warmup_ratio))

        def factor(step: int) -> float:
            warmup = (step + 1) / warmup_steps
            return min(warmup, 0.5 * (1 + math.cos(math.pi * min(1, max(0, step - warmup_steps) / max(1, total_steps - warmup_steps)))))

        super().__init__(optimizer, factor)


def _classes(module: Any, base: type) -> dict[str, Any]:
    """Return the supported classes in a module that derive from a base class, by name."""
    return {
        name: cls
        for name, cls in vars(module).items()
        if isinstance(cls, type) and issubclass(cls, base) and cls is not base and not name.startswith("_") and name not in UNSUPPORTED
    }


OPTIMIZERS = _classes(torch.optim, Optimizer)
SCHEDULERS = {
    "WarmupCosine": WarmupCosine,
    **_classes(lr_scheduler, lr_scheduler.LRScheduler),
    **_classes(timm.scheduler, TimmScheduler),
}


class OptimizerSettings(Settings):
    """An optimizer of torch.optim by name.

    Attributes:
        name: name of the optimizer.
        kwargs: keyword arguments of the optimizer, except params, lr and weight_decay, which have settings of their own.

    """

    name: str = "AdamW"
    kwargs: Kwargs = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _require_optimizer(cls, name: str) -> str:
        return _require_supported("optimizer", name, OPTIMIZERS)

    @model_validator(mode="after")
    def _require_kwargs(self) -> Self:
        _create(OPTIMIZERS[self.name], _example_groups(), {}, self.kwargs)
        return self

    @property
    def has_weight_decay(self) -> bool:
        """Whether the optimizer has weight decay."""
        return "weight_decay" in inspect.signature(OPTIMIZERS[self.name]).parameters


class SchedulerSettings(Settings):
    """A learning rate schedule by name: of torch.optim.lr_scheduler, of timm.scheduler, or WarmupCosine.

    Attributes:
        name: name of the schedule.
        kwargs: keyword arguments of the schedule. Those that depend on the training have defaults: total_steps, T_max and t_initial are
            its length in `interval`, max_lr the learning rates, and mode is max for ReduceLROnPlateau, which gets val.recall_at_1.
        interval: step: the schedule advances after each step; epoch: after each epoch.

    """

    name: str = "WarmupCosine"
    kwargs: Kwargs = Field(default_factory=dict)
    interval: Literal["step", "epoch"] = "step"

    @field_validator("name")
    @classmethod
    def _require_scheduler(cls, name: str) -> str:
        return _require_supported("scheduler", name, SCHEDULERS)

    @model_validator(mode="after")
    def _require_kwargs(self) -> Self:
        if self.needs_validation and self.interval != "epoch":
            raise ValueError(f"{self.name} needs val.recall_at_1, which is measured after each epoch; set interval: epoch")
        optimizer = torch.optim.AdamW(_example_groups())
        _create(SCHEDULERS[self.name], optimizer, _scheduler_defaults(self, optimizer, 100), self.kwargs)
        return self

    @property
    def needs_validation(self) -> bool:
        """Whether the schedule depends on the validation metric."""
        return self.name == "ReduceLROnPlateau"


def parameter_groups(
    model: EmbeddingModel, criterion: nn.Module, learning_rate: float, head_learning_rate: float, weight_decay: float
) -> ParameterGroups:
    """Return the groups of an optimizer: trainable stages, and head and criterion at a learning rate of their own.

    Weight decay is for weights; biases, norms and the weights of losses (proxies) have none.
    """
    stages = [parameter for parameter in model.trainable.parameters() if parameter.requires_grad]
    in_backbone = {id(parameter) for parameter in model.trainable.parameters()} | {id(parameter) for parameter in model.frozen.parameters()}
    head = [parameter for parameter in model.parameters() if id(parameter) not in in_backbone]
    groups: ParameterGroups = []
    for parameters, rate in ((stages, learning_rate), (head, head_learning_rate)):
        groups.append({"params": [p for p in parameters if p.ndim > 1], "lr": rate, "weight_decay": weight_decay})
        groups.append({"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    groups.append({"params": list(criterion.parameters()), "lr": head_learning_rate, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def create_optimizer(settings: OptimizerSettings, groups: ParameterGroups) -> Optimizer:
    """Return the optimizer that the settings name.

    Raises:
        ConfigError: the class does not take these groups.

    """
    try:
        optimizer: Optimizer = _create(OPTIMIZERS[settings.name], groups, {}, settings.kwargs)
    except ValueError as error:
        raise ConfigError(f"train.optimizer: {error}") from None
    return optimizer


def create_scheduler(settings: SchedulerSettings, optimizer: Optimizer, length: int) -> Any:
    """Return the schedule that the settings name, of torch or timm.

    Args:
        settings: name and kwargs.
        optimizer: whose learning rates are set; they are the maximum.
        length: of the training, in the interval of the settings.

    Raises:
        ConfigError: the class does not take this optimizer.

    """
    try:
        return _create(SCHEDULERS[settings.name], optimizer, _scheduler_defaults(settings, optimizer, length), settings.kwargs)
    except ValueError as error:
        raise ConfigError(f"train.scheduler: {error}") from None


def advance_timm_scheduler(scheduler: TimmScheduler, step: int, epoch: int) -> None:
    """Set the learning rates for a number of finished steps and epochs."""
    if scheduler.t_in_epochs:
        scheduler.step(epoch)
    else:
        scheduler.step_update(step)


def _scheduler_defaults(settings: SchedulerSettings, optimizer: Optimizer, length: int) -> dict[str, Any]:
    """Return the kwargs that depend on the training, as far as the class takes them."""
    accepted = inspect.signature(SCHEDULERS[settings.name]).parameters
    defaults: dict[str, Any] = dict.fromkeys(("total_steps", "T_max", "t_initial"), length)
    defaults |= {"max_lr": [group["lr"] for group in optimizer.param_groups], "t_in_epochs": settings.interval == "epoch"}
    if settings.needs_validation:
        defaults["mode"] = "max"
    return {name: value for name, value in defaults.items() if name in accepted}


def _require_supported(kind: str, name: str, supported: Mapping[str, Any]) -> str:
    if name in UNSUPPORTED:
        raise ValueError(f"{name} {UNSUPPORTED[name]}")
    return require_name(kind, name, supported)


def _create(cls: Any, target: ParameterGroups | Optimizer, defaults: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Any:
    """Return an optimizer of parameter groups, or a schedule of an optimizer.

    Raises:
        ValueError: the class does not take the kwargs.

    """
    for name in kwargs:
        if name in SET_BY:
            raise ValueError(f"kwargs of {cls.__name__}: {name} is set by {SET_BY[name]}")
    try:
        return cls(target, **{**defaults, **kwargs})
    except Exception as error:  # the classes raise exceptions of any type
        raise ValueError(f"kwargs of {cls.__name__}: {error}") from None


def _example_groups() -> ParameterGroups:
    """Return parameter groups to try out kwargs with."""
    return [{"params": [nn.Parameter(torch.zeros(1, 1))], "lr": 1e-3}]

"""Optimizers and schedules by name, and the groups of parameters."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import lr_scheduler

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ConfigError
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings
from deeprank.training.losses import LossSettings, create_loss
from deeprank.training.optimizers import (
    OPTIMIZERS,
    SCHEDULERS,
    UNSUPPORTED,
    OptimizerSettings,
    SchedulerSettings,
    advance_timm_scheduler,
    create_optimizer,
    create_scheduler,
    parameter_groups,
)
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import Triplets
from tests.training.small_training import fit_small

# Kwargs without which a class cannot be created.
REQUIRED_KWARGS = {
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 1e-4},
    "ExponentialLR": {"gamma": 0.9},
    "MultiStepLR": {"milestones": [2, 4]},
    "MultiStepLRScheduler": {"decay_t": [2, 4], "decay_rate": 0.5},
    "StepLR": {"step_size": 2},
    "StepLRScheduler": {"decay_t": 2, "decay_rate": 0.5},
    "WSDLRScheduler": {"decay_t": 3},
}


def _weight(value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.full((2, 2), value))


def _groups() -> list[dict[str, object]]:
    return [{"params": [_weight()], "lr": 0.1, "weight_decay": 0.0}, {"params": [_weight()], "lr": 0.3, "weight_decay": 0.0}]


def _rates(settings: SchedulerSettings, optimizer: torch.optim.Optimizer, length: int) -> list[list[float]]:
    """Return the learning rates of both groups at each step."""
    scheduler, rates = create_scheduler(settings, optimizer, length), []
    for step in range(length):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if isinstance(scheduler, lr_scheduler.LRScheduler):
            scheduler.step()
        else:
            advance_timm_scheduler(scheduler, step + 1, step + 1)
    return rates


def test_backbone_and_head_have_learning_rates_of_their_own(model_settings: ModelSettings) -> None:
    model = EmbeddingModel(model_settings.model_copy(update={"frozen_stages": 1}))
    loss = create_loss(LossSettings(name="ProxyAnchorLoss", kwargs={}), torch.arange(4)[:, None], 16)
    groups = parameter_groups(model, loss, learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.1)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert all(rate_of[id(parameter)] == 1e-4 for parameter in model.trainable.parameters())
    assert all(rate_of[id(parameter)] == 1e-2 for parameter in [*model.head.parameters(), *loss.parameters()])
    assert not any(id(parameter) in rate_of for parameter in model.frozen.parameters())
    decayed = {id(parameter) for group in groups for parameter in group["params"] if group["weight_decay"]}
    assert decayed == {id(parameter) for parameter in [*model.trainable.parameters(), *model.head.parameters()] if parameter.ndim > 1}


def test_the_default_is_adamw_with_warmup_and_cosine() -> None:
    settings = TrainSettings()
    optimizer = create_optimizer(settings.optimizer, _groups())
    assert type(optimizer) is torch.optim.AdamW
    assert tuple(optimizer.defaults["betas"]) == (0.9, 0.99)
    assert settings.scheduler.interval == "step"
    # 5 % of 60 steps are 3 steps of warm-up.
    factors = [min((step + 1) / 3, 0.5 * (1 + math.cos(math.pi * (max(0, step - 3) / 57)))) for step in range(60)]
    assert _rates(settings.scheduler, optimizer, 60) == [[0.1 * factor, 0.3 * factor] for factor in factors]


def test_an_optimizer_gets_its_kwargs() -> None:
    optimizer = create_optimizer(OptimizerSettings(name="SGD", kwargs={"momentum": 0.9, "nesterov": True}), _groups())
    assert type(optimizer) is torch.optim.SGD
    assert [(group["momentum"], group["nesterov"], group["lr"]) for group in optimizer.param_groups] == [(0.9, True, 0.1), (0.9, True, 0.3)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_by_name_makes_a_step(name: str) -> None:
    groups = _groups()
    optimizer = create_optimizer(OptimizerSettings(name=name), groups)
    weights = [group["params"][0] for group in groups]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert all((weight < 1).all() for weight in weights)


def test_a_scheduler_of_torch_gets_its_kwargs() -> None:
    settings = SchedulerSettings(name="StepLR", kwargs={"step_size": 2, "gamma": 0.5})
    rates = _rates(settings, create_optimizer(OptimizerSettings(), _groups()), 5)
    assert np.allclose(rates, [[0.1 * factor, 0.3 * factor] for factor in (1, 1, 0.5, 0.5, 0.25)])


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_scheduler_of_timm_gets_its_kwargs_and_its_length(interval: str) -> None:
    settings = SchedulerSettings(name="CosineLRScheduler", kwargs={"lr_min": 0.01}, interval=interval)
    rates = _rates(settings, create_optimizer(OptimizerSettings(), _groups()), 6)
    cosines = [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert np.allclose(rates, [[0.01 + 0.09 * cosine, 0.01 + 0.29 * cosine] for cosine in cosines])


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "OneCycleLR", "TanhLRScheduler"])
def test_a_scheduler_spans_the_training_by_default(name: str) -> None:
    rates = _rates(SchedulerSettings(name=name), create_optimizer(OptimizerSettings(), _groups()), 20)
    assert max(rates) == pytest.approx([0.1, 0.3], rel=0.01)
    assert rates[-1][0] < 0.01


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "ReduceLROnPlateau"])
def test_every_scheduler_resumes_from_its_state(name: str) -> None:
    settings = SchedulerSettings(name=name, kwargs=REQUIRED_KWARGS.get(name, {}))

    def advance(scheduler: object, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
        rates = []
        for step in steps:
            optimizer.step()
            if isinstance(scheduler, lr_scheduler.LRScheduler):
                scheduler.step()
            else:
                advance_timm_scheduler(scheduler, step + 1, 0)
            rates.append(optimizer.param_groups[1]["lr"])
        return rates

    optimizer = create_optimizer(OptimizerSettings(), _groups())
    scheduler = create_scheduler(settings, optimizer, 8)
    advance(scheduler, optimizer, range(4))
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    resumed_optimizer = create_optimizer(OptimizerSettings(), _groups())
    resumed = create_scheduler(settings, resumed_optimizer, 8)
    optimizer_state, scheduler_state = torch.load(file, weights_only=True)
    resumed_optimizer.load_state_dict(optimizer_state)
    resumed.load_state_dict(scheduler_state)
    assert advance(resumed, resumed_optimizer, range(4, 7)) == advance(scheduler, optimizer, range(4, 7))


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (OptimizerSettings, "adamw", "there is no optimizer adamw; nearest: AdamW"),
        (OptimizerSettings, "SDG", "there is no optimizer SDG; nearest: SGD"),
        (OptimizerSettings, "Optimizer", "there is no optimizer Optimizer"),
        (OptimizerSettings, "qqq", "there is no optimizer qqq; known: Adafactor, "),
        (SchedulerSettings, "CosineAnealingLR", "there is no scheduler CosineAnealingLR; nearest: CosineAnnealingLR"),
        (SchedulerSettings, "CosineScheduler", "there is no scheduler CosineScheduler; nearest: CosineLRScheduler"),
        (SchedulerSettings, "LRScheduler", "there is no scheduler LRScheduler"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(settings: type[OptimizerSettings], name: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(name=name)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_name_is_refused_with_the_reason(name: str) -> None:
    settings = OptimizerSettings if hasattr(torch.optim, name) else SchedulerSettings
    with pytest.raises(ValidationError, match=f"{name} {UNSUPPORTED[name]}"):
        settings(name=name)


@pytest.mark.parametrize(
    ("settings", "name", "kwargs", "message"),
    [
        (OptimizerSettings, "SGD", {"momentun": 0.9}, "kwargs of SGD: .*'momentun'"),
        (OptimizerSettings, "SGD", {"nesterov": True}, "kwargs of SGD: Nesterov momentum requires a momentum"),
        (OptimizerSettings, "AdamW", {"lr": 0.1}, "kwargs of AdamW: lr is set by train.learning_rate and train.head_learning_rate"),
        (OptimizerSettings, "AdamW", {"weight_decay": 0.1}, "kwargs of AdamW: weight_decay is set by train.weight_decay"),
        (SchedulerSettings, "WarmupCosine", {"warmup": 0.1}, "kwargs of WarmupCosine: .*'warmup'"),
        (SchedulerSettings, "WarmupCosine", {"warmup_ratio": 1.0}, "kwargs of WarmupCosine: warmup_ratio is 1.0; it must be at least 0"),
        (SchedulerSettings, "StepLR", {"stepsize": 3}, "kwargs of StepLR: .*'stepsize'"),
        (SchedulerSettings, "StepLR", {}, "kwargs of StepLR: .*'step_size'"),
        (SchedulerSettings, "CosineLRScheduler", {"min_lr": 0.1}, "kwargs of CosineLRScheduler: .*'min_lr'"),
        (SchedulerSettings, "CosineLRScheduler", {"t_in_epochs": True}, "t_in_epochs is set by train.scheduler.interval"),
        (SchedulerSettings, "ReduceLROnPlateau", {}, "ReduceLROnPlateau needs val.recall_at_1, .*; set interval: epoch"),
    ],
)
def test_wrong_kwargs_are_refused(settings: type[OptimizerSettings], name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(name=name, kwargs=kwargs)


def test_a_scheduler_that_does_not_fit_the_optimizer_is_refused(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    # A one-cycle schedule changes the momentum too, and Adagrad has none.
    settings = {"optimizer": {"name": "Adagrad"}, "scheduler": {"name": "OneCycleLR"}}
    with pytest.raises(ConfigError, match=r"train\.scheduler: kwargs of OneCycleLR: optimizer must support momentum"):
        fit_small(catalogue, triplets, tmp_path, model=model_settings, **settings)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"name": "StepLR", "kwargs": {"step_size": 1, "gamma": 0.5}, "interval": "epoch"}, [5e-4, 2.5e-4, 1.25e-4]),
        ({"name": "MultiStepLRScheduler", "kwargs": {"decay_t": [3], "decay_rate": 0.1}, "interval": "epoch"}, [1e-3, 1e-4, 1e-4]),
        ({"name": "LinearLR", "kwargs": {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 6}}, [7e-4, 4e-4, 1e-4]),
        ({"name": "PolyLRScheduler", "kwargs": {"power": 1.0}}, [2e-3 / 3, 1e-3 / 3, 0]),
    ],
)
def test_a_training_follows_its_scheduler(
    catalogue: Catalogue,
    triplets: Triplets,
    model_settings: ModelSettings,
    tmp_path: Path,
    scheduler: dict[str, object],
    expected: list[float],
) -> None:
    settings = {"optimizer": {"name": "SGD", "kwargs": {"momentum": 0.9, "nesterov": True}}, "learning_rate": 1e-3, "epochs": 3}
    _, points = fit_small(catalogue, triplets, tmp_path, model=model_settings, scheduler=scheduler, **settings)
    assert np.isfinite([point.value for point in points]).all()
    rates = [point.value for point in points if point.name == "train.learning_rate"]
    assert rates == pytest.approx(expected, abs=1e-9)


def test_a_plateau_of_the_validation_lowers_the_learning_rate(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    plateau = {"name": "ReduceLROnPlateau", "kwargs": {"patience": 0, "factor": 0.1, "min_lr": 1e-8, "eps": 0}, "interval": "epoch"}
    settings = {"learning_rate": 1e-7, "head_learning_rate": 1e-7, "epochs": 4}
    _, points = fit_small(catalogue, triplets, tmp_path, model=model_settings, scheduler=plateau, **settings)
    recalls = [point.value for point in points if point.name == "val.recall_at_1"]
    assert len(set(recalls)) == 1
    # The rate of an epoch is reported before its validation.
    assert [point.value for point in points if point.name == "train.learning_rate"] == pytest.approx([1e-7, 1e-7, 1e-8, 1e-8])


def test_timm_schedulers_are_those_of_timm() -> None:
    assert SCHEDULERS["CosineLRScheduler"] is CosineLRScheduler

"""Precision of each phase of a training, float32 or bfloat16, chosen by a measurement before the training starts."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from deeprank.models.embedding_model import Embedder, EmbeddingModel

logger = logging.getLogger(__name__)

# A smaller speed-up may be noise, and a choice by noise would give other weights in another run.
MIN_SPEEDUP = 1.2
PROBE_BATCH_SIZE = 16

PrecisionSetting = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Precision:
    """Whether each phase computes in bfloat16.

    Attributes:
        frozen: forward pass of the frozen stages.
        training: forward and backward pass of the trainable stages.
        inference: forward pass of the whole model (validation, initialization).

    """

    frozen: bool
    training: bool
    inference: bool


def select_precision(setting: PrecisionSetting, model: EmbeddingModel, size: int) -> Precision:
    """Return the precision of each phase; `auto` measures both precisions and logs the result.

    Args:
        setting: auto, or the precision of all phases.
        model: that will be trained.
        size: pixels per side of the training images.

    """
    if setting != "auto":
        return Precision(*[setting == "bf16"] * 3)
    device = model.mean.device
    pixels = model.normalize_pixels(torch.zeros(PROBE_BATCH_SIZE, 3, size, size, dtype=torch.uint8, device=device))
    with torch.no_grad():
        shared = model.frozen(pixels)

    def train_step() -> None:
        output = model.trainable(shared).float().sum()
        # No gradient if all stages with weights are frozen and only the head is trained.
        if output.requires_grad:
            output.backward()

    phases: dict[str, Callable[[], object]] = {
        "frozen": torch.no_grad()(lambda: model.frozen(pixels)),
        "training": train_step,
        "inference": torch.no_grad()(lambda: model(pixels)),
    }
    if not len(model.frozen):
        # Without frozen stages the measurement would be noise, and it also selects the precision of the initialization.
        del phases["frozen"]
    speedups = {name: _measure_speedup(phase, device) for name, phase in phases.items()}
    model.zero_grad(set_to_none=True)
    logger.info(
        "speed in bfloat16 relative to float32: %s; bfloat16 is used from %.1f",
        ", ".join(f"{name} {speedup:.2f}" for name, speedup in speedups.items()),
        MIN_SPEEDUP,
    )
    return Precision(**{phase.name: speedups.get(phase.name, 0.0) >= MIN_SPEEDUP for phase in fields(Precision)})


def _measure_speedup(phase: Callable[[], object], device: torch.device) -> float:
    """Return the speed in bfloat16 relative to float32, from the fastest of five alternating runs each."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for bf16 in [False, True] * 5:
        start = time.perf_counter()
        with autocast(bf16, device):
            phase()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        times[bf16].append(time.perf_counter() - start)
    return min(times[False]) / min(times[True])


def autocast(bf16: bool, device: torch.device) -> torch.autocast:
    """Return the autocast context of a phase."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


class TrainingModel(Embedder):
    """A model in training: the frozen stages without gradients, each phase in its own precision."""

    def __init__(self, model: EmbeddingModel, precision: Precision) -> None:
        super().__init__()
        self.model, self.precision, self.embedding_dim = model, precision, model.embedding_dim

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        pixels = self.model.normalize_pixels(images)
        with torch.no_grad(), autocast(self.precision.frozen, images.device):
            shared = self.model.frozen(pixels)
        with autocast(self.precision.training, images.device):
            features: Tensor = self.model.trainable(shared.float())
        return self.model.embed_features(pixels, features.float())


class InferenceModel(Embedder):
    """A model in evaluation, in the precision of inference."""

    def __init__(self, model: Embedder, precision: Precision) -> None:
        super().__init__()
        self.model, self.bf16, self.embedding_dim = model, precision.inference, model.embedding_dim

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        with autocast(self.bf16, images.device):
            embeddings: Tensor = self.model(images)
        return embeddings.float()

"""Which number format is faster here, measured in two seconds before a training starts."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from deeprank.models.embedding_model import Embedder, EmbeddingModel

logger = logging.getLogger(__name__)

# A gain smaller than this may be noise, and a choice by noise would give other weights another time.
WORTH_IT = 1.2
BATCH = 16

Choice = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Precision:
    """Whether each phase computes in bfloat16: the stages that keep their weights, those that learn, the look at val."""

    frozen: bool
    training: bool
    inference: bool


def choose(choice: Choice, model: EmbeddingModel, size: int) -> Precision:
    """Return the precision of each phase of training a net on images of `size` pixels; `auto` measures and says why."""
    if choice != "auto":
        return Precision(*[choice == "bf16"] * 3)
    device = model.mean.device
    pixels = model.pixels(torch.zeros(BATCH, 3, size, size, dtype=torch.uint8, device=device))
    with torch.no_grad():
        shared = model.lower(pixels)

    def learn() -> None:
        found = model.upper(shared).float().sum()
        # Where all stages that have weights are frozen, the head alone learns.
        if found.requires_grad:
            found.backward()

    jobs: dict[str, Callable[[], object]] = {
        "frozen": torch.no_grad()(lambda: model.lower(pixels)),
        "training": learn,
        "inference": torch.no_grad()(lambda: model(pixels)),
    }
    if not len(model.lower):
        # Nothing to measure: noise must not choose the precision that a training starts from.
        del jobs["frozen"]
    gains = {name: _gain(job, device) for name, job in jobs.items()}
    model.zero_grad(set_to_none=True)
    logger.info(
        "bfloat16 against fp32 on this machine: %s; it is used from %.1f times on",
        ", ".join(
            f"{name} stages {gain:.2f} times as fast" if name != "inference" else f"forward {gain:.2f}" for name, gain in gains.items()
        ),
        WORTH_IT,
    )
    return Precision(**{phase.name: gains.get(phase.name, 0.0) >= WORTH_IT for phase in fields(Precision)})


def _gain(job: Callable[[], object], device: torch.device) -> float:
    """Return how many times as fast a job is in bfloat16: the best of several runs each, by turns, as others may use the machine."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for bf16 in [False, True] * 5:
        start = time.perf_counter()
        with autocast(bf16, device):
            job()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        times[bf16].append(time.perf_counter() - start)
    return min(times[False]) / min(times[True])


def autocast(bf16: bool, device: torch.device) -> torch.autocast:
    """Return the context in which a phase computes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


class TrainingModel(Embedder):
    """A net in training: the frozen stages without a graph, each part in its own precision."""

    def __init__(self, model: EmbeddingModel, precision: Precision) -> None:
        super().__init__()
        self.model, self.precision, self.embedding_dim = model, precision, model.embedding_dim

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        pixels = self.model.pixels(images)
        with torch.no_grad(), autocast(self.precision.frozen, images.device):
            shared = self.model.lower(pixels)
        with autocast(self.precision.training, images.device):
            features: Tensor = self.model.upper(shared.float())
        return self.model.embed(pixels, features.float())


class InferenceModel(Embedder):
    """A net in evaluation, in the precision of inference."""

    def __init__(self, model: Embedder, precision: Precision) -> None:
        super().__init__()
        self.model, self.bf16, self.embedding_dim = model, precision.inference, model.embedding_dim

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        with autocast(self.bf16, images.device):
            found: Tensor = self.model(images)
        return found.float()

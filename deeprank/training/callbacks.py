"""Callbacks of a training: weight averaging, collapse check, epoch report, early stopping, and the checkpoint to resume from."""

import copy
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from deeprank.data.object_store import download, is_remote, remove, upload
from deeprank.errors import TrainingError
from deeprank.models.embedding_model import EmbeddingModel
from deeprank.reporting import Reporter
from deeprank.training.data import TrainingBatch
from deeprank.training.validation import VALIDATION_METRIC

logger = logging.getLogger(__name__)

STEPS_PER_COLLAPSE_CHECK = 10
# Minimum of half the mean squared distance between the embeddings of a batch.
MIN_SPREAD = 5e-5

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAveraging(pl.Callback):
    """Exponential moving average of the model's weights.

    Lightning's own callback averages the whole module: it would also copy the criterion at each step, with a proxy for each class.

    Args:
        model: that is trained.
        decay: of the average per step.

    """

    def __init__(self, model: EmbeddingModel, decay: float) -> None:
        def update(averages: Tensors, weights: Tensors, num_averaged: Tensor | int) -> None:
            # A smaller decay for the first steps, in which the weights change fast.
            current_decay = min(decay, (1 + int(num_averaged)) / (10 + int(num_averaged)))
            torch._foreach_lerp_(averages, weights, 1 - current_decay)

        self.model = model
        self.averaged = AveragedModel(model, multi_avg_fn=update).requires_grad_(False)

    @property
    def average(self) -> EmbeddingModel:
        """The averaged model."""
        average = self.averaged.module
        assert isinstance(average, EmbeddingModel)
        return average

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add the weights of a step to the average."""
        self.averaged.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and their number."""
        return self.averaged.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the averaged weights and their number."""
        self.averaged.load_state_dict(state_dict)


class CollapseCheck(pl.Callback):
    """Stop a training whose loss is not finite or whose embeddings have collapsed; checked every few steps."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Check a batch if it is its turn."""
        if batch_idx % STEPS_PER_COLLAPSE_CHECK == 0 or trainer.is_last_batch:
            check_embeddings(outputs["embeddings"], outputs["loss"], trainer.current_epoch + 1, batch_idx + 1)


def check_embeddings(embeddings: Tensor, loss: Tensor, epoch: int, step: int) -> None:
    """Check that a training can continue.

    Args:
        embeddings: (n, d) of a batch, of unit length.
        loss: of the batch.
        epoch, step: of the batch, counted from 1, for the message.

    Raises:
        TrainingError: the loss is not finite, or the embeddings of the batch are within a hundredth of each other.

    """
    where = f"epoch {epoch}, step {step}"
    if not bool(torch.isfinite(loss)):
        raise TrainingError(f"{where}: the loss is {float(loss)}; lower train.learning_rate")
    # 1 - |mean|² is half the mean squared distance between two embeddings of unit length.
    if float(1 - embeddings.mean(0).square().sum()) < MIN_SPREAD:
        raise TrainingError(
            f"{where}: the embedding has collapsed: all images of a batch have nearly the same embedding; lower train.learning_rate, "
            "or choose a loss that separates classes (SupConLoss)"
        )


class EpochReport(pl.Callback):
    """Report loss, speed, learning rate and validation after each epoch; a resumed training reports the earlier epochs again.

    Attributes:
        points: (name, value, epoch) of all that was reported; epochs count from 1.

    """

    def __init__(self, reporter: Reporter, validate: Callable[[], dict[str, float]]) -> None:
        self.reporter, self.validate = reporter, validate
        self.points: list[tuple[str, float, int]] = []
        self.losses: list[Tensor] = []
        self.num_images, self.start = 0, 0.0

    @property
    def num_epochs(self) -> int:
        """Number of epochs that were reported."""
        return len({epoch for _, _, epoch in self.points})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to count losses, images and seconds."""
        self.losses, self.num_images, self.start = [], 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: TrainingBatch, batch_idx: int
    ) -> None:
        """Count a batch."""
        self.losses.append(outputs["loss"])
        self.num_images += len(batch.images)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate and report."""
        epoch = trainer.current_epoch + 1
        loss = float(torch.stack(self.losses).mean())
        self._report("train.loss", loss, epoch)
        self._report("train.images_per_second", self.num_images / (time.perf_counter() - self.start), epoch)
        self._report("train.learning_rate", trainer.optimizers[0].param_groups[0]["lr"], epoch)
        metrics = self.validate()
        for name, value in metrics.items():
            self._report(f"val.{name}", value, epoch)
        # For early stopping and schedules.
        pl_module.log_dict({f"val.{name}": value for name, value in metrics.items()})
        values = ", ".join(f"val {name} {value:.3f}" for name, value in metrics.items())
        logger.info("epoch %d of %d: loss %.4f%s", epoch, trainer.max_epochs, loss, f", {values}" if values else "")

    def _report(self, name: str, value: float, epoch: int) -> None:
        self.points.append((name, value, epoch))
        self.reporter.metric(name, value, epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return what was reported."""
        return {"points": self.points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Report the epochs before the checkpoint again."""
        for name, value, epoch in state_dict["points"]:
            self._report(name, value, epoch)
        logger.info("resuming after epoch %d", self.num_epochs)


class EarlyStoppingWithBestWeights(EarlyStopping):
    """Stop when the validation metric has not improved for some epochs, and keep the weights of the best epoch.

    Attributes:
        model: that is validated.
        best_weights: state of the model after the best epoch; empty before the end of the first epoch.

    """

    def __init__(self, model: nn.Module, patience: int) -> None:
        super().__init__(VALIDATION_METRIC, mode="max", patience=patience, check_finite=False, check_on_train_epoch_end=True)
        self.model = model
        self.best_weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if the checkpoint is of a training that had stopped."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the metric."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.wait_count == 0:
            self.best_weights = copy.deepcopy(self.model.state_dict())
        if self.wait_count >= self.patience:
            logger.info(
                "stopped after epoch %d: val recall_at_1 has not improved for %d epochs; the weights of the best epoch are used",
                trainer.current_epoch + 1,
                self.wait_count,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the best weights."""
        return super().state_dict() | {"best_weights": self.best_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with the best weights."""
        super().load_state_dict(state_dict)
        self.best_weights = state_dict["best_weights"]


class ResumeCheckpoint(Checkpoint):
    """Save the whole state of a training to one file after each epoch.

    The file is complete at any moment, even if the process is killed. Lightning's ModelCheckpoint writes to the folder for temporary
    files first, and a move from there to another file system is not atomic.

    Attributes:
        file: the checkpoint on this machine.
        uri: of the checkpoint in an object store, from which another machine goes on; empty for none.

    """

    def __init__(self, folder: Path | str, name: str) -> None:
        """Take the folder of the file, or the URI of a folder of an object store, and the file's name."""
        self.uri = f"{folder}/{name}" if is_remote(str(folder)) else ""
        self._temporary = tempfile.TemporaryDirectory() if self.uri else None
        self.file = Path(self._temporary.name if self._temporary else folder, name)
        if self.uri:
            download(self.uri, self.file)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the state."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_suffix(".part")
        trainer.save_checkpoint(temporary)
        temporary.replace(self.file)
        if self.uri:
            upload(self.file, self.uri)

    def remove(self) -> None:
        """Remove the checkpoint."""
        self.file.unlink()
        if self.uri:
            remove(self.uri)

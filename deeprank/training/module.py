"""The LightningModule of a training: one training step, and the optimizer."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from timm.scheduler.scheduler import Scheduler as TimmScheduler
from torch import Tensor, nn
from torch.nn.parallel import data_parallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from deeprank.models.embedding_model import EmbeddingModel
from deeprank.training.augmentation import color_jitter, random_affine_crop
from deeprank.training.data import TrainingBatch
from deeprank.training.optimizers import advance_timm_scheduler, create_optimizer, create_scheduler, parameter_groups
from deeprank.training.precision import Precision, TrainingModel
from deeprank.training.settings import TrainSettings
from deeprank.training.validation import VALIDATION_METRIC


class TrainingModule(pl.LightningModule):
    """One training step on a batch, and the optimizer with its schedule.

    Attributes:
        model: that is trained.
        criterion: the weighted losses.
        settings: of the training.
        precision: of each phase; a checkpoint restores it, because it changes the weights.
        gpus: numbers of the GPUs that share each batch.

    """

    def __init__(self, model: EmbeddingModel, criterion: nn.Module, settings: TrainSettings, precision: Precision, gpus: list[int]) -> None:
        super().__init__()
        self.model, self.criterion, self.settings, self.precision, self.gpus = model, criterion, settings, precision, gpus

    def on_train_epoch_start(self) -> None:
        """Set training mode, which validation ends, and seed torch."""
        self.model.train()
        # Dropout and some miners draw from torch's global generator, whose state no checkpoint has.
        torch.manual_seed(int(np.random.default_rng([self.settings.seed, self.current_epoch]).integers(2**62)))

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss of a batch, and its embeddings (n, d)."""
        rng = np.random.default_rng([self.settings.seed, self.current_epoch, batch_idx])
        crops = random_affine_crop(batch.images.float(), batch.crop_size, self.settings.augment, rng)
        embeddings = self._embed(color_jitter(crops, self.settings.augment, rng))
        return {"loss": self.criterion(embeddings, batch.labels, batch.triplets), "embeddings": embeddings.detach()}

    def _embed(self, images: Tensor) -> Tensor:
        model = TrainingModel(self.model, self.precision)
        # One process and one loss over the whole batch: the same negatives and weights with any number of GPUs.
        embeddings: Tensor = data_parallel(model, images, self.gpus) if len(self.gpus) > 1 else model(images)
        return embeddings

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return optimizer and schedule."""
        settings = self.settings
        rates = (settings.learning_rate, settings.head_learning_rate)
        optimizer = create_optimizer(settings.optimizer, parameter_groups(self.model, self.criterion, *rates, settings.weight_decay))
        interval = settings.scheduler.interval
        length = settings.epochs if interval == "epoch" else int(self.trainer.estimated_stepping_batches)
        scheduler = create_scheduler(settings.scheduler, optimizer, length)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": VALIDATION_METRIC}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Advance the schedule by one interval."""
        if isinstance(scheduler, TimmScheduler):
            advance_timm_scheduler(scheduler, self.trainer.global_step, self.current_epoch + 1)
        elif not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Advance a schedule that depends on the validation; Lightning would do so after the checkpoint of the epoch."""
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(self.trainer.callback_metrics[VALIDATION_METRIC])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the precision."""
        checkpoint["precision"] = asdict(self.precision)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the precision."""
        self.precision = Precision(**checkpoint["precision"])

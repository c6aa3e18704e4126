"""Progress bar of a training."""

import time

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deeprank.training.data import TrainingBatch


class ProgressBar(pl.Callback):
    """Progress bar with images per second and remaining time, on standard error; in a log file the epoch reports replace it."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        self.progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self.epoch, self.num_images, self.start = -1, 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task("training", total=total, completed=trainer.global_step, speed="")
        self.progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: TrainingBatch, batch_idx: int
    ) -> None:
        assert isinstance(outputs, dict)
        if trainer.current_epoch != self.epoch:
            # The speed is measured from the second batch of an epoch, because validation comes before the first.
            self.epoch, self.num_images, self.start = trainer.current_epoch, 0, time.perf_counter()
        else:
            self.num_images += len(batch.images)
        speed = self.num_images / max(time.perf_counter() - self.start, 1e-9)
        description = f"training, epoch {self.epoch + 1}"
        text = f"{speed:.0f} images/s, loss {float(outputs['loss']):.3f}"
        self.progress.update(self.task, advance=1, description=description, speed=text)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.progress.stop()

"""What a training shows while it runs."""

import time

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor


class Bar(pl.Callback):
    """Progress with images a second and the time left; in a log file, the epoch's line stands instead."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        self.progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self.epoch, self.images, self.started = -1, 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task("training", total=total, completed=trainer.global_step, speed="")
        self.progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: Tensor, batch_idx: int
    ) -> None:
        assert isinstance(outputs, dict)
        if trainer.current_epoch != self.epoch:
            self.epoch, self.images, self.started = trainer.current_epoch, 0, time.perf_counter()
        else:
            # From the epoch's second batch on: the look at val between epochs does not count.
            self.images += len(batch)
        speed = self.images / max(time.perf_counter() - self.started, 1e-9)
        what = f"training, epoch {self.epoch + 1}"
        self.progress.update(self.task, advance=1, description=what, speed=f"{speed:.0f} images/s, loss {float(outputs['loss']):.3f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.progress.stop()

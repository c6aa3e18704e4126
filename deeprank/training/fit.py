"""Fine-tuning a ConvNet so that similar photographs come to lie close together."""

import hashlib
import logging
import math
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError
from deeprank.model.bundle import Bundle
from deeprank.model.embedding import embed_catalogue
from deeprank.model.memory import keep_freed_memory
from deeprank.model.network import EmbeddingNet, NetworkSettings
from deeprank.model.preprocessing import Preprocessing
from deeprank.reporting import Reporter
from deeprank.settings import Settings
from deeprank.training.augmentation import AugmentSettings, change_light, turn
from deeprank.training.batches import TrainingBatches, class_batches
from deeprank.training.losses import LossSettings, WeightedLosses
from deeprank.triplets.relevance import levels
from deeprank.triplets.sampling import Triplets

logger = logging.getLogger(__name__)

Tensors = tuple[Tensor, ...] | list[Tensor]
Size = Annotated[int, Field(ge=32, le=256)]


class TrainSettings(Settings):
    """How to train.

    Attributes:
        network: which net, and the weights it starts from.
        losses: by name; their weighted sum is minimised.
        augment: how strongly.
        epochs: an epoch forwards each photograph of the triplets once.
        train_sizes: pixels of the square crop in training; several divide the epochs evenly among them, in order.
        search_size: pixels of the photograph afterwards; a net finds more in some more pixels than it was trained on.
        classes_per_batch, images_per_class: P and K.
        learning_rate, head_learning_rate: of AdamW, at their highest, for the ConvNet and for head and loss.
        frozen_blocks: so many of the ConvNet's first stages keep their weights (0: none; 1: the stem; n: n - 1 more).
        weight_decay: of AdamW.
        warmup: share of all steps during which the rates rise; then they fall along a cosine.
        average: decay a step of the moving average of the weights, which is what is kept; 0: the last weights.
        seed: of everything random.

    """

    network: NetworkSettings = NetworkSettings()
    losses: tuple[LossSettings, ...] = Field((LossSettings(name="SupConLoss", arguments={"temperature": 0.1}),), min_length=1)
    augment: AugmentSettings = AugmentSettings()
    epochs: int = Field(8, ge=1)
    train_sizes: tuple[Size, ...] = Field((128,), min_length=1)
    search_size: Size = 160
    classes_per_batch: int = Field(12, ge=2)
    images_per_class: int = Field(4, ge=2)
    learning_rate: float = Field(3e-4, gt=0)
    head_learning_rate: float = Field(3e-3, gt=0)
    frozen_blocks: int = Field(0, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    average: float = Field(0.998, ge=0, lt=1)
    seed: int = 0


@dataclass(frozen=True)
class _Plan:
    """Which photographs to train on, and the number of each one's class."""

    rows: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]


def fit(
    catalogue: Catalogue, triplets: Triplets, settings: TrainSettings, folder: Path, reporter: Reporter, checkpoints: Path | None = None
) -> Bundle:
    """Train on the photographs of the train triplets and save the model bundle in `folder`.

    With a folder for `checkpoints`, a training that was killed goes on after its last whole epoch when it is started again
    with the same settings and triplets, and ends with the same weights as an unbroken one.

    Reports a point an epoch of train.loss, train.images_per_second, train.learning_rate, and of the val split, where
    there is one, val.recall_at_1 (leave one out) and val.triplet_accuracy.

    Raises:
        DataError: fewer than two classes to train on.
        ConfigError: no such net, weights or loss.

    """
    keep_freed_memory()
    pl.seed_everything(settings.seed, verbose=False)
    rows = np.unique(triplets.of("train")[["query", "positive", "negative"]].to_numpy())
    classes = levels(catalogue.frame["label"].iloc[rows].tolist())[:, -1]
    if len(np.unique(classes)) < 2:
        raise DataError("training needs at least two classes in the train split")
    module = _Training(catalogue, triplets, settings, _Plan(rows, classes), reporter)
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    checkpoint = checkpoints / f"{training_key(triplets, settings)}.ckpt" if checkpoints else None
    trainer = pl.Trainer(
        max_epochs=settings.epochs,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[_Bar()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as decoders:
        # Decoding runs on threads of our own (Lance must not be forked); and Lightning uses what torch deprecates.
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec).*")
        module.decoders, module.checkpoint = decoders, checkpoint
        trainer.fit(module, ckpt_path=checkpoint if checkpoint and checkpoint.exists() else None)
    if checkpoint:
        checkpoint.unlink()
    facts = {
        "catalogue": triplets.fingerprint,
        "losses": ", ".join(loss.name for loss in settings.losses),
        "epochs": str(settings.epochs),
        "seed": str(settings.seed),
    }
    return Bundle.save(folder, module.averaged, settings.network, Preprocessing(size=settings.search_size), facts)


def training_key(triplets: Triplets, settings: TrainSettings) -> str:
    """Return what makes two trainings the same one: a hash of settings, triplets and catalogue."""
    rows = pd.util.hash_pandas_object(triplets.frame, index=False).to_numpy().tobytes()
    return hashlib.sha256(settings.model_dump_json().encode() + triplets.fingerprint.encode() + rows).hexdigest()[:16]


def parameter_groups(net: EmbeddingNet, loss: nn.Module, settings: TrainSettings) -> list[dict[str, object]]:
    """Return AdamW's groups: the ConvNet below, head and loss at their own rate; frozen stages are left out."""
    frozen = {id(parameter) for stage in frozen_stages(net, settings.frozen_blocks) for parameter in stage.parameters()}
    body = [parameter for parameter in net.backbone.parameters() if id(parameter) not in frozen]
    for stage in frozen_stages(net, settings.frozen_blocks):
        stage.requires_grad_(False)
    return [
        {"params": body, "lr": settings.learning_rate},
        {"params": [*net.head.parameters(), *loss.parameters()], "lr": settings.head_learning_rate},
    ]


def frozen_stages(net: EmbeddingNet, count: int) -> list[nn.Module]:
    """Return the first `count` stages of a ConvNet: the stem with its norm is the first, then its blocks in order."""
    if not count:
        return []
    children = list(net.backbone.named_children())
    first_block = next((i for i, (_, child) in enumerate(children) if isinstance(child, nn.Sequential)), len(children))
    stem = nn.ModuleList([child for _, child in children[:first_block]])
    blocks = list(children[first_block][1].children()) if first_block < len(children) else []
    return [stem, *blocks][:count]


class _Training(pl.LightningModule):
    """Lightning's view of one training: batches, loss, rates, and the look at the val split after each epoch."""

    decoders: ThreadPoolExecutor
    checkpoint: Path | None = None

    def __init__(self, catalogue: Catalogue, triplets: Triplets, settings: TrainSettings, plan: _Plan, reporter: Reporter) -> None:
        super().__init__()
        self.catalogue, self.triplets, self.settings, self.plan, self.reporter = catalogue, triplets, settings, plan, reporter
        self.net = EmbeddingNet(settings.network).to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.net, multi_avg_fn=self._average) if settings.average else None
        self.loss = WeightedLosses(settings.losses, int(plan.classes.max()) + 1, self.net.dimensions)
        self.class_of_row = torch.full((len(catalogue.frame),), -1)
        self.class_of_row[torch.from_numpy(plan.rows)] = torch.from_numpy(plan.classes)
        self.losses: list[Tensor] = []
        self.reported: list[tuple[str, float, int]] = []
        self.images, self.started = 0, 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["reported"] = self.reported

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        logger.info("going on after epoch %d, where this training was broken off", checkpoint["epoch"] + 1)
        for name, value, epoch in checkpoint["reported"]:
            self._report(name, value, epoch)

    def _report(self, name: str, value: float, epoch: int) -> None:
        self.reported.append((name, value, epoch))
        self.reporter.metric(name, value, epoch)

    def train_dataloader(self) -> TrainingBatches:
        rng = np.random.default_rng([self.settings.seed, self.current_epoch])
        batches = class_batches(self.plan.classes, self.settings.classes_per_batch, self.settings.images_per_class, rng)
        rows = [self.plan.rows[batch] for batch in batches]
        seed = (self.settings.seed, self.current_epoch)
        sizes = self.settings.train_sizes
        size = sizes[self.current_epoch * len(sizes) // self.settings.epochs]
        return TrainingBatches(self.catalogue, rows, size, self.settings.augment, seed, self.decoders)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(parameter_groups(self.net, self.loss, self.settings), weight_decay=self.settings.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        warm = max(1, round(steps * self.settings.warmup))

        def rate(step: int) -> float:
            rising = (step + 1) / warm
            return min(rising, 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, steps - warm))))

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, rate), "interval": "step"},
        }

    def on_train_epoch_start(self) -> None:
        # Batches of one shop's photographs would spoil the statistics that BatchNorm learnt from a million images.
        for module in self.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        self.losses, self.images, self.started = [], 0, time.perf_counter()

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        images, rows = batch
        rng = np.random.default_rng([self.settings.seed, self.current_epoch, number])
        embeddings = self.net(change_light(turn(images.float(), self.settings.augment, rng), self.settings.augment, rng))
        loss: Tensor = self.loss(embeddings, self.class_of_row[rows.cpu()].to(embeddings.device))
        self.losses.append(loss.detach())
        self.images += len(rows)
        return loss

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.average is not None:
            self.average.update_parameters(self.net)

    def _average(self, kept: Tensors, now: Tensors, count: Tensor | int) -> None:
        # Early on, when the weights change fast, the average looks back less far.
        decay = min(self.settings.average, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(kept, now, 1 - decay)

    @property
    def averaged(self) -> EmbeddingNet:
        """The net that is kept."""
        net = self.net if self.average is None else self.average.module
        assert isinstance(net, EmbeddingNet)
        return net

    def on_train_epoch_end(self) -> None:
        epoch = self.current_epoch + 1
        mean = float(torch.stack(self.losses).mean())
        self._report("train.loss", mean, epoch)
        self._report("train.images_per_second", self.images / (time.perf_counter() - self.started), epoch)
        self._report("train.learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"], epoch)
        found = validate(self.averaged, Preprocessing(size=self.settings.search_size), self.catalogue, self.triplets)
        self.net.train()
        for name, value in found.items():
            self._report(f"val.{name}", value, epoch)
        seen = ", ".join(f"val {name} {value:.3f}" for name, value in found.items())
        logger.info("epoch %d of %d: loss %.4f%s", epoch, self.settings.epochs, mean, f", {seen}" if seen else "")
        if self.checkpoint:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            part = self.checkpoint.with_suffix(".part")
            self.trainer.save_checkpoint(part)
            # The file is whole at any moment, whenever the process is killed.
            part.replace(self.checkpoint)


def validate(net: EmbeddingNet, preprocessing: Preprocessing, catalogue: Catalogue, triplets: Triplets) -> dict[str, float]:
    """Return recall_at_1 (leave one out) and triplet_accuracy of the val split; nothing where it is too small."""
    rows, drawn = catalogue.rows("val"), triplets.of("val")
    if not len(drawn):
        return {}
    embeddings = embed_catalogue(net, preprocessing, catalogue, rows)
    place = np.full(len(catalogue.frame), -1)
    place[rows] = np.arange(len(rows))
    query, positive, negative = (embeddings[place[drawn[name]]] for name in ("query", "positive", "negative"))
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -np.inf)
    labels = catalogue.frame["label"].to_numpy()[rows]
    _, code, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    findable = sizes[code] > 1
    return {
        "recall_at_1": float((labels[similarity.argmax(axis=1)] == labels)[findable].mean()),
        "triplet_accuracy": float(((query * positive).sum(1) > (query * negative).sum(1)).mean()),
    }


class _Bar(pl.Callback):
    """Progress with images a second and the time left; in a log file, the epoch's line stands instead."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        self.progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task("training", total=total, completed=trainer.global_step, speed="")
        self.progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, _Training)
        speed = pl_module.images / (time.perf_counter() - pl_module.started)
        loss = float(pl_module.losses[-1])
        what = f"training, epoch {trainer.current_epoch + 1}"
        self.progress.update(self.task, advance=1, description=what, speed=f"{speed:.0f} images/s, loss {loss:.3f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.progress.stop()

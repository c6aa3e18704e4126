"""Fine-tuning a ConvNet so that similar images come to lie close together."""

import copy
import hashlib
import logging
import math
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import faiss
import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pydantic import Field, PositiveInt, model_validator
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.parallel import data_parallel
from torch.optim.swa_utils import AveragedModel

from deeprank.checksums import hash_file
from deeprank.data.catalogue import Catalogue
from deeprank.data.images import SHORT_SIDE
from deeprank.errors import ConfigError, DataError, TrainingError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, EmbeddingModel, ModelSettings, SearchModel
from deeprank.models.inference import BATCH, device, embed_catalogue
from deeprank.models.memory import keep_freed_memory
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import Reporter
from deeprank.settings import Settings
from deeprank.training.augmentation import AugmentSettings, color_jitter, random_affine_crop, source_size
from deeprank.training.batches import Batch, DecodedImages, TrainingBatches, class_batches, triplet_batches
from deeprank.training.initialization import init_from_bundle, init_head_from_pca
from deeprank.training.losses import LossSettings, WeightedLosses
from deeprank.training.precision import Choice, InferenceModel, Precision, TrainingModel, choose
from deeprank.training.progress import Bar
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy, relevance_matrix
from deeprank.triplets.sampling import Triplets

logger = logging.getLogger(__name__)
PACKAGE = Path(__file__).parents[1]

# Steps between two looks at whether the training still makes sense.
LOOK_EVERY = 10
COLLAPSED = 5e-5
# Images whose mean is the center of the general features.
CENTER_OF = 1000

Tensors = tuple[Tensor, ...] | list[Tensor]
Size = Annotated[int, Field(ge=32, le=SHORT_SIDE)]


class TrainSettings(Settings):
    """How to train.

    Attributes:
        model: which model, and the weights it starts from.
        losses: by name; their weighted sum is minimised.
        augment: how strongly.
        splits: whose images are learned from; train and val once everything is chosen, which leaves nothing to validate on.
        epochs: an epoch is as many images as are learned from, less where the classes do not fill its last batch.
        train_image_sizes: pixels of the square crop in training; several divide the epochs evenly among them, in
            order; of fewer epochs than sizes, the last sizes are taken, which lie nearest to what search sees.
        eval_image_size: pixels of the image afterwards; a net finds more in some more pixels than it was trained on.
        batch_sampler: of `pk` (P x K images, all the triplets they make) or of `triplets` (those that were sampled, and no others).
        classes_per_batch, images_per_class: P and K.
        balanced: every class comes as often as any other, however many images it has.
        triplets_per_batch: where batches are of triplets.
        optimizer: AdamW, or SGD with Nesterov momentum 0.9 as the seed and the paper have it.
        learning_rate, head_learning_rate: at their highest, for the ConvNet and for head and loss.
        weight_decay: of weights; biases, norms and class vectors have none.
        init_head: pca: head and class vectors start from what the ConvNet's features already tell (weights: none tell nothing), not at random.
        warmup_ratio: share of all steps during which the rates rise; then they fall along a cosine.
        ema_decay: decay a step of the moving average of the weights, which is what is kept; 0: the last weights.
        early_stopping_patience: stop after so many epochs without a better val.recall_at_1, and keep the best epoch's weights; 0: never.
        precision: fp32, bf16, or auto: what is faster on this machine, measured for each phase.
        devices: how many GPUs of one machine share each batch, whose embeddings meet in one loss; auto: all there are.
        seed: of everything random.
        weights_checksum: of the file of `model.weights: file:PATH`, found by itself, so that a changed file is no cache hit.

    """

    model: ModelSettings = ModelSettings()
    losses: tuple[LossSettings, ...] = Field(
        (
            LossSettings(name="CosineSoftmax", kwargs={"scale": 16, "margin": 0.1, "smoothing": 0.1}),
            LossSettings(name="SupConLoss", kwargs={"temperature": 0.1}),
        ),
        min_length=1,
    )
    augment: AugmentSettings = AugmentSettings()
    splits: tuple[Literal["train"]] | tuple[Literal["train"], Literal["val"]] = ("train",)
    epochs: int = Field(8, ge=1)
    train_image_sizes: tuple[Size, ...] = Field((128,), min_length=1)
    eval_image_size: Size = 160
    batch_sampler: Literal["pk", "triplets"] = "pk"
    classes_per_batch: int = Field(16, ge=2)
    images_per_class: int = Field(4, ge=2)
    balanced: bool = True
    triplets_per_batch: int = Field(16, ge=1)
    optimizer: Literal["AdamW", "SGD"] = "AdamW"
    learning_rate: float = Field(3e-4, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    init_head: Literal["pca", "random"] = "pca"
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    early_stopping_patience: int = Field(0, ge=0)
    precision: Choice = "auto"
    devices: PositiveInt | Literal["auto"] = "auto"
    seed: int = Field(0, ge=0, lt=2**32)
    weights_checksum: str = ""

    @model_validator(mode="before")
    @classmethod
    def _with_checksum(cls, values: Any) -> Any:
        model = values.get("model") if isinstance(values, dict) else None
        weights = model.get("weights") if isinstance(model, dict) else getattr(model, "weights", None)
        file = Path(weights.removeprefix("file:")) if isinstance(weights, str) and weights.startswith("file:") else None
        # Where there is no such file, whoever makes the net says so.
        return {**values, "weights_checksum": hash_file(file)} if file and file.is_file() else values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        picking = [loss.name for loss in self.losses if loss.miner or loss.memory]
        if self.batch_sampler == "triplets" and picking:
            raise ValueError(
                f"batch_sampler: triplets trains on those triplets, but the miner or memory of {picking[0]} picks others; remove one"
            )
        if self.early_stopping_patience and "val" in self.splits:
            raise ValueError(
                "early_stopping_patience watches the val split, which splits gives to the training; set early_stopping_patience: 0 or splits: [train]"
            )
        return self


def fit(
    catalogue: Catalogue,
    triplets: Triplets,
    settings: TrainSettings,
    folder: Path,
    reporter: Reporter,
    checkpoints: Path | None = None,
    start: Bundle | None = None,
) -> Bundle:
    """Train on the images of the triplets of `settings.splits`, in batches of classes on all val images of their
    classes, and save the model bundle in `folder`.

    With a folder for `checkpoints`, a training that was killed goes on after its last whole epoch when it is started again
    with the same code, settings, triplets and start, and ends with the same weights as an unbroken one.

    With a bundle to `start` from, its trained weights are where the training starts, those of the head too, whatever
    `init_head` says; what the net knew before any training stays what its search embeddings hold of that.

    Reports a point an epoch of train.loss, train.images_per_second, train.learning_rate, and of the val split, where
    there is one to spare, val.recall_at_1 (leave one out) and val.triplet_accuracy, both of the learned embedding alone.

    Raises:
        DataError: fewer than two classes to train on.
        ConfigError: no such net, weights or loss, or not so many GPUs; or early_stopping_patience where val has no triplet.
        ModelError: the bundle to start from is damaged, or of another network.
        TrainingError: the embedding collapsed, or the loss is no number.

    """  # noqa: D205
    keep_freed_memory()
    pl.seed_everything(settings.seed, verbose=False)
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    trainer = pl.Trainer(
        max_epochs=settings.epochs,
        devices=1,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[Bar()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        # A CPU adds in one order as it is; where a GPU has no such way of an operation, it says so.
        deterministic=None if device().type == "cpu" else "warn",
    )
    module = _Training(catalogue, triplets, settings, reporter, start)
    checkpoint = checkpoints / f"{training_key(triplets, settings, start)}.ckpt" if checkpoints else None
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as decoders:
        # Decoding runs on threads of our own (Lance must not be forked); and Lightning uses what torch deprecates.
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|in eval mode).*")
        module.decoders, module.checkpoint = decoders, checkpoint
        trainer.fit(module, ckpt_path=checkpoint if checkpoint and checkpoint.exists() else None, weights_only=True)
        model = module.finished()
    facts = {
        "catalogue": triplets.fingerprint,
        "images": str(len(module.rows)),
        "classes": str(int(module.classes.max()) + 1),
        "losses": ", ".join(loss.name for loss in settings.losses),
        "epochs": str(len({epoch for _, _, epoch in module.reported})),
        "seed": str(settings.seed),
        "bf16": ", ".join(name for name, used in asdict(module.precision).items() if used) or "none",
        "start": start.weights_hash if start else "scratch",
    }
    bundle = Bundle.save(folder, model, settings.model, Preprocessing(size=settings.eval_image_size), facts)
    if checkpoint:
        checkpoint.unlink()
    return bundle


def training_key(triplets: Triplets, settings: TrainSettings, start: Bundle | None = None) -> str:
    """Return what makes two trainings the same one: a hash of code, settings, triplets, catalogue and the weights to start from."""
    rows = pd.util.hash_pandas_object(triplets.frame, index=False).to_numpy().tobytes()
    code = [hash_file(file) for package in ("data", "models", "training") for file in sorted((PACKAGE / package).glob("*.py"))]
    words = "".join([*code, settings.model_dump_json(), triplets.fingerprint, start.weights_hash if start else ""])
    return hashlib.sha256(words.encode() + rows).hexdigest()[:16]


def parameter_groups(model: EmbeddingModel, loss: nn.Module, settings: TrainSettings) -> list[dict[str, object]]:
    """Return the optimizer's groups: the ConvNet below, head and loss at their own rate; of each, weights decay and biases do not."""
    body = [parameter for parameter in model.upper.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in model.upper.parameters()} | {id(parameter) for parameter in model.lower.parameters()}
    head = [parameter for parameter in model.parameters() if id(parameter) not in known]
    groups: list[dict[str, object]] = []
    for parameters, rate in ((body, settings.learning_rate), (head, settings.head_learning_rate)):
        groups.append({"params": [p for p in parameters if p.ndim > 1], "lr": rate, "weight_decay": settings.weight_decay})
        groups.append({"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    groups.append({"params": list(loss.parameters()), "lr": settings.head_learning_rate, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


class _Training(pl.LightningModule):
    """Lightning's view of one training: batches, loss, rates, and the look at the val split after each epoch."""

    decoders: ThreadPoolExecutor
    checkpoint: Path | None = None
    decoded: DecodedImages | None = None

    def __init__(self, catalogue: Catalogue, triplets: Triplets, settings: TrainSettings, reporter: Reporter, start: Bundle | None) -> None:
        super().__init__()
        self.catalogue, self.triplets, self.settings, self.reporter = catalogue, triplets, settings, reporter
        drawn = np.concatenate([triplets.of(split)[["query", "positive", "negative"]].to_numpy() for split in settings.splits])
        # A val image alone in its class there is in no triplet of val; here train's are beside it. Withheld classes stay out.
        labels = catalogue.frame["label"]
        more = catalogue.rows("val") if "val" in settings.splits and settings.batch_sampler == "pk" else np.empty(0, dtype=np.int64)
        more = more[labels.iloc[more].isin(labels.iloc[np.unique(drawn)]).to_numpy()]
        self.rows, places = np.unique(np.concatenate([drawn.ravel(), more]), return_inverse=True)
        self.drawn = places[: drawn.size].reshape(-1, 3)
        codes = encode_hierarchy(catalogue.frame["label"].iloc[self.rows].tolist())
        values, first, self.classes = np.unique(codes[:, -1], return_index=True, return_inverse=True)
        if len(values) < 2:
            raise DataError("training needs at least two classes in the train split")
        relevances = relevance_matrix(codes[first], RelevanceWeights())
        if settings.early_stopping_patience and not len(triplets.of("val")):
            raise ConfigError("train.early_stopping_patience: it watches the val split, which has no triplet here; set it to 0")
        self.model = EmbeddingModel(settings.model).to(device()).to(memory_format=torch.channels_last)
        self.original = [copy.deepcopy(self.model.upper)] if settings.model.pretrained_share else []
        self.loss = WeightedLosses(settings.losses, torch.from_numpy(relevances), self.model.embedding_dim).to(device())
        there = torch.cuda.device_count()
        wanted = there if settings.devices == "auto" else settings.devices
        if wanted > max(there, 1):
            raise ConfigError(f"train.devices: {wanted} GPUs are asked for, this machine has {there}; lower it, or set auto")
        self.gpus = list(range(min(wanted, there)))
        self.precision = choose(settings.precision, self.model, settings.train_image_sizes[0])
        # In the precision whose choice is never close: "same config, same weights" must not hang on noise.
        looking = replace(self.precision, inference=self.precision.frozen)
        seen = (self.loss, catalogue, self.rows, self.classes, settings.train_image_sizes[0], looking)
        if start:
            init_from_bundle(self.model, settings.model, start, *seen)
        elif settings.init_head == "pca" and settings.model.weights != "none":
            init_head_from_pca(self.model, *seen)
        self.average = AveragedModel(self.model, multi_avg_fn=self._average).requires_grad_(False) if settings.ema_decay else None
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.losses: list[Tensor] = []
        self.reported: list[tuple[str, float, int]] = []
        self.images, self.started = 0, 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["reported"], checkpoint["best"], checkpoint["precision"] = self.reported, self.best, asdict(self.precision)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        logger.info("going on after epoch %d, where this training was broken off", checkpoint["epoch"] + 1)
        self.best, self.precision = checkpoint["best"], Precision(**checkpoint["precision"])
        for name, value, epoch in checkpoint["reported"]:
            self._report(name, value, epoch)

    def _report(self, name: str, value: float, epoch: int) -> None:
        self.reported.append((name, value, epoch))
        self.reporter.metric(name, value, epoch)

    def train_dataloader(self) -> TrainingBatches:
        settings, epoch = self.settings, self.current_epoch
        rng = np.random.default_rng([settings.seed, epoch])
        if settings.batch_sampler == "pk":
            self.batches = class_batches(self.classes, settings.classes_per_batch, settings.images_per_class, rng, settings.balanced)
        else:
            self.batches = triplet_batches(self.drawn, settings.triplets_per_batch, rng)
        sizes = settings.train_image_sizes[-settings.epochs :]
        self.size = sizes[epoch * len(sizes) // settings.epochs]
        if self.decoded is None or self.decoded.preprocessing.size != source_size(self.size):
            self.decoded = DecodedImages(self.catalogue, source_size(self.size), self.decoders)
        return TrainingBatches([Batch(self.rows[batch.images]) for batch in self.batches], self.decoded)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        groups = parameter_groups(self.model, self.loss, self.settings)
        optimizer: torch.optim.Optimizer = (
            # A short memory of squared gradients: a training of a thousand steps has no time for a long one.
            torch.optim.AdamW(groups, betas=(0.9, 0.99))
            if self.settings.optimizer == "AdamW"
            else torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warm = max(1, round(steps * self.settings.warmup_ratio))

        def rate(step: int) -> float:
            rising = (step + 1) / warm
            return min(rising, 0.5 * (1 + math.cos(math.pi * min(1, max(0, step - warm) / max(1, steps - warm)))))

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, rate), "interval": "step"},
        }

    def on_train_start(self) -> None:
        if self.settings.early_stopping_patience and self._epochs_without() >= self.settings.early_stopping_patience:
            # It was killed after its last epoch.
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        self.model.train()
        # Dropout and some miners draw from torch's own generator, which no checkpoint holds.
        torch.manual_seed(int(np.random.default_rng([self.settings.seed, self.current_epoch]).integers(2**62)))
        self.losses, self.images, self.started = [], 0, time.perf_counter()

    def training_step(self, images: Tensor, step: int) -> Tensor:
        rng = np.random.default_rng([self.settings.seed, self.current_epoch, step])
        warped = random_affine_crop(images.float(), self.size, self.settings.augment, rng)
        embeddings = self._embed(color_jitter(warped, self.settings.augment, rng))
        made = self.batches[step]
        classes = torch.from_numpy(self.classes[made.images]).to(embeddings.device)
        triplets = None if made.triplets is None else tuple(torch.from_numpy(made.triplets).to(embeddings.device).T)
        loss: Tensor = self.loss(embeddings, classes, triplets)
        self.losses.append(loss.detach())
        self.images += len(images)
        if step % LOOK_EVERY == 0 or step == len(self.batches) - 1:
            check_embeddings(embeddings.detach(), loss.detach(), self.current_epoch + 1, step + 1)
        return loss

    def _embed(self, images: Tensor) -> Tensor:
        training = TrainingModel(self.model, self.precision)
        # One process and one loss over the whole batch: as many negatives, and the same weights, on any number of devices.
        found: Tensor = data_parallel(training, images, self.gpus) if len(self.gpus) > 1 else training(images)
        return found

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _average(self, kept: Tensors, now: Tensors, count: Tensor | int) -> None:
        # Early on, when the weights change fast, the average looks back less far.
        decay = min(self.settings.ema_decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(kept, now, 1 - decay)

    @property
    def averaged(self) -> EmbeddingModel:
        """The net that is kept."""
        model = self.model if self.average is None else self.average.module
        assert isinstance(model, EmbeddingModel)
        return model

    def on_train_epoch_end(self) -> None:
        epoch = self.current_epoch + 1
        mean = float(torch.stack(self.losses).mean())
        self._report("train.loss", mean, epoch)
        self._report("train.images_per_second", self.images / (time.perf_counter() - self.started), epoch)
        self._report("train.learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"], epoch)
        preprocessing = Preprocessing(size=self.settings.eval_image_size)
        model = InferenceModel(self.averaged, self.precision)
        found = {} if "val" in self.settings.splits else validate(model, preprocessing, self.catalogue, self.triplets)
        for name, value in found.items():
            self._report(f"val.{name}", value, epoch)
        seen = ", ".join(f"val {name} {value:.3f}" for name, value in found.items())
        logger.info("epoch %d of %d: loss %.4f%s", epoch, self.settings.epochs, mean, f", {seen}" if seen else "")
        if self.settings.early_stopping_patience and found:
            self._stop_early(found["recall_at_1"], epoch)
        if self.checkpoint:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            part = self.checkpoint.with_suffix(".part")
            self.trainer.save_checkpoint(part)
            # The file is whole at any moment, whenever the process is killed.
            part.replace(self.checkpoint)

    def _stop_early(self, recall: float, epoch: int) -> None:
        if self.best is None or recall > self.best[0]:
            self.best = (recall, copy.deepcopy(self.averaged.state_dict()))
        without = self._epochs_without()
        if without >= self.settings.early_stopping_patience:
            logger.info(
                "stopped after epoch %d: val recall_at_1 has not risen for %d epochs; the best one's weights are kept", epoch, without
            )
            self.trainer.should_stop = True

    def _epochs_without(self) -> int:
        """Return how many epochs have passed since the best one on val."""
        history = [value for name, value, _ in self.reported if name == "val.recall_at_1"]
        return len(history) - 1 - history.index(max(history)) if history else 0

    def finished(self) -> Embedder:
        """Return the net that searches, made of the weights that are kept."""
        model = self.averaged.eval()
        if self.best is not None:
            model.load_state_dict(self.best[1])
        if not self.original:
            return model
        search = (
            SearchModel(model, self.original[0], self.settings.model.pretrained_share).to(device()).to(memory_format=torch.channels_last)
        )
        some = self.rows[:: -(-len(self.rows) // CENTER_OF)]
        decoded = DecodedImages(self.catalogue, self.settings.eval_image_size, self.decoders)
        search.center(decoded(part) for part in np.array_split(some, -(-len(some) // BATCH)))
        return search


def check_embeddings(embeddings: Tensor, loss: Tensor, epoch: int, step: int) -> None:
    """Stop a training that cannot recover.

    Raises:
        TrainingError: the loss is no number, or all embeddings of a batch lie within a hundredth of each other.

    """
    where = f"epoch {epoch}, step {step}"
    if not bool(torch.isfinite(loss)):
        raise TrainingError(f"{where}: the loss is {float(loss)}; lower train.learning_rate")
    # 1 - |mean|² is half of the mean squared distance between two embeddings of unit length.
    if float(1 - embeddings.mean(0).square().sum()) < COLLAPSED:
        raise TrainingError(
            f"{where}: the embedding has collapsed: all images of a batch lie at one point; lower train.learning_rate, "
            "or choose a loss that pushes classes apart (SupConLoss)"
        )


def validate(model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, triplets: Triplets) -> dict[str, float]:
    """Return recall_at_1 (leave one out) and triplet_accuracy of the val split, of classes that have triplets; nothing where none has."""
    rows, drawn = catalogue.rows("val"), triplets.of("val")
    if not len(drawn):
        return {}
    # Classes that are kept out of training have no say in when it ends either.
    of = catalogue.frame["label"]
    rows = rows[of.iloc[rows].isin(of.iloc[drawn[["query", "positive", "negative"]].to_numpy().ravel()]).to_numpy()]
    embeddings = embed_catalogue(model, preprocessing, catalogue, rows)
    place = np.full(len(catalogue.frame), -1)
    place[rows] = np.arange(len(rows))
    query, positive, negative = (embeddings[place[drawn[name]]] for name in ("query", "positive", "negative"))
    # Of the two nearest one may be the image itself. faiss goes through blocks: not all pairs are in memory at once.
    _, found = faiss.knn(embeddings, embeddings, 2, metric=faiss.METRIC_INNER_PRODUCT)
    nearest = np.where(found[:, 0] == np.arange(len(found)), found[:, 1], found[:, 0])
    labels = of.to_numpy()[rows]
    _, code, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    findable = sizes[code] > 1
    return {
        "recall_at_1": float((labels[nearest] == labels)[findable].mean()),
        "triplet_accuracy": float(((query * positive).sum(1) > (query * negative).sum(1)).mean()),
    }

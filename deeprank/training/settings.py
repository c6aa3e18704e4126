"""Settings of a training."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from deeprank.checksums import hash_file
from deeprank.data.images import MAX_SHORT_SIDE
from deeprank.models.embedding_model import ModelSettings
from deeprank.settings import Settings
from deeprank.training.augmentation import AugmentSettings
from deeprank.training.losses import LossSettings
from deeprank.training.optimizers import OptimizerSettings, SchedulerSettings
from deeprank.training.precision import PrecisionSetting

ImageSize = Annotated[int, Field(ge=32, le=MAX_SHORT_SIDE)]


class TrainSettings(Settings):
    """Settings of a training.

    Attributes:
        model: architecture and initial weights.
        losses: losses by name; the training minimizes their weighted sum.
        augment: ranges of the augmentation.
        splits: whose images the model is trained on. With val in it, after all choices were made on val, there is no validation.
        epochs: number of epochs; an epoch has as many images as the splits, fewer if the classes do not fill its last batch.
        train_image_sizes: pixels per side of a training image. Several sizes divide the epochs evenly, in order; with fewer epochs than
            sizes, the last sizes are used, which are nearest to eval_image_size.
        eval_image_size: pixels per side in validation and search; accuracy is higher with some more pixels than in training.
        batch_sampler: pk: batches of P x K images, with all triplets that they contain; triplets: batches of sampled triplets, and no
            others.
        classes_per_batch: P, the number of classes in a P x K batch.
        images_per_class: K, the number of images of each class in a P x K batch.
        balanced: every class is sampled equally often, whatever its number of images.
        triplets_per_batch: number of triplets in a batch of the batch sampler `triplets`.
        optimizer: of torch.optim by name; the default has a short memory of squared gradients, because a training has few steps.
        scheduler: of the learning rates by name.
        learning_rate: maximum learning rate of the backbone.
        head_learning_rate: maximum learning rate of the head and of the weights of losses, such as proxies.
        weight_decay: weight decay of all weights, except biases, norms and the weights of losses, such as proxies.
        init_head: pca: head and class weights are computed from the pretrained features (not with weights: none); random: they are drawn.
        ema_decay: decay per step of the moving average of the weights, which is the result of the training; 0: the last weights.
        early_stopping_patience: number of epochs without a higher val.recall_at_1 after which the training stops; the result is the
            best epoch's weights. 0: all epochs.
        precision: fp32, bf16, or auto: the faster one in each phase of the training, by a measurement on this machine.
        devices: number of GPUs of this machine that share each batch; their embeddings meet in one loss. auto: all GPUs.
        seed: random seed of the training.
        weights_checksum: checksum of the file in `model.weights: file:PATH`; it is set automatically, so that a changed file is a cache
            miss.

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
    train_image_sizes: tuple[ImageSize, ...] = Field((128,), min_length=1)
    eval_image_size: ImageSize = 160
    batch_sampler: Literal["pk", "triplets"] = "pk"
    classes_per_batch: int = Field(16, ge=2)
    images_per_class: int = Field(4, ge=2)
    balanced: bool = True
    triplets_per_batch: int = Field(16, ge=1)
    optimizer: OptimizerSettings = OptimizerSettings(name="AdamW", kwargs={"betas": [0.9, 0.99]})
    scheduler: SchedulerSettings = SchedulerSettings(name="WarmupCosine", kwargs={"warmup_ratio": 0.05})
    learning_rate: float = Field(3e-4, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    init_head: Literal["pca", "random"] = "pca"
    ema_decay: float = Field(0.998, ge=0, lt=1)
    early_stopping_patience: int = Field(0, ge=0)
    precision: PrecisionSetting = "auto"
    devices: PositiveInt | Literal["auto"] = "auto"
    seed: int = Field(0, ge=0, lt=2**32)
    weights_checksum: str = ""

    @model_validator(mode="before")
    @classmethod
    def _add_weights_checksum(cls, values: Any) -> Any:
        model = values.get("model") if isinstance(values, dict) else None
        weights = model.get("weights") if isinstance(model, dict) else getattr(model, "weights", None)
        file = Path(weights.removeprefix("file:")) if isinstance(weights, str) and weights.startswith("file:") else None
        # A missing file is reported when the backbone is created.
        return {**values, "weights_checksum": hash_file(file)} if file and file.is_file() else values

    @model_validator(mode="after")
    def _require_compatible(self) -> Self:
        selecting = [loss.name for loss in self.losses if loss.miner or loss.memory]
        if self.batch_sampler == "triplets" and selecting:
            raise ValueError(
                f"batch_sampler: triplets trains on those triplets, but the miner or memory of {selecting[0]} selects others; remove one"
            )
        if self.early_stopping_patience and "val" in self.splits:
            raise ValueError(
                "early_stopping_patience needs the val split for validation, but splits trains on it; "
                "set early_stopping_patience: 0 or splits: [train]"
            )
        if self.scheduler.needs_validation and "val" in self.splits:
            raise ValueError(
                f"scheduler {self.scheduler.name} needs the val split for validation, but splits trains on it; set splits: [train]"
            )
        if self.weight_decay and not self.optimizer.has_weight_decay:
            raise ValueError(f"optimizer {self.optimizer.name} has no weight decay; set weight_decay: 0")
        return self

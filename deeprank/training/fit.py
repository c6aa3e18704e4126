"""Fine-tuning of a backbone, so that the embeddings of similar images are near each other."""

import hashlib
import logging
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl

from deeprank.checksums import hash_file
from deeprank.cpu import num_cores
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ConfigError
from deeprank.memory import keep_freed_memory
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel
from deeprank.models.inference import device
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import Reporter
from deeprank.training.callbacks import CollapseCheck, EarlyStoppingWithBestWeights, EpochReport, ResumeCheckpoint, WeightAveraging
from deeprank.training.data import DecodedImages, TrainingData, TrainingImages, select_training_images
from deeprank.training.module import TrainingModule
from deeprank.training.precision import InferenceModel
from deeprank.training.progress import ProgressBar
from deeprank.training.settings import TrainSettings
from deeprank.training.setup import create_module, create_search_model
from deeprank.training.validation import validate
from deeprank.triplets.sampling import Triplets

PACKAGE = Path(__file__).parents[1]
# Packages whose code can change the result of a training.
HASHED_PACKAGES = ("data", "models", "training")


def fit(
    catalogue: Catalogue,
    triplets: Triplets,
    settings: TrainSettings,
    folder: Path,
    reporter: Reporter,
    checkpoints: Path | str | None = None,
    init_bundle: Bundle | None = None,
) -> Bundle:
    """Train a model and save its bundle.

    Reports for each epoch train.loss, train.images_per_second, train.learning_rate and, if val is not trained on, val.recall_at_1
    (leave one out) and val.triplet_accuracy, both of the learned embedding alone.

    Args:
        catalogue: that holds the images.
        triplets: of the catalogue; they select the images, see `select_training_images`.
        settings: of the training.
        folder: of the new bundle.
        reporter: that receives the metrics of each epoch.
        checkpoints: folder for checkpoints, or URI of a folder of an object store. A killed training continues after its last complete
            epoch when it is started again with the same code, settings, triplets and initial weights, on any machine that sees the
            folder; its result is the same as without the interruption.
        init_bundle: a trained model to start from, whatever `init_head` is; the features before training in its search embeddings stay
            those of the pretrained weights. None: start from the pretrained weights.

    Raises:
        DataError: fewer than two classes to train on.
        ConfigError: there is no such model, weights or loss, or fewer GPUs than set; or a setting needs val triplets, and there are none.
        ModelError: the bundle to start from is damaged, or has another architecture.
        TrainingError: the embedding collapsed, or the loss is not finite.

    """
    keep_freed_memory()
    pl.seed_everything(settings.seed, verbose=False)
    images = select_training_images(catalogue, triplets, settings)
    _require_val_triplets(triplets, settings)
    module, pretrained = create_module(catalogue, images, settings, init_bundle)
    resume = ResumeCheckpoint(checkpoints, f"{training_key(triplets, settings, init_bundle)}.ckpt") if checkpoints else None
    with ThreadPoolExecutor(num_cores()) as decoders:
        model, num_epochs = _train(module, TrainingData(catalogue, images, settings, decoders), triplets, reporter, resume)
        decoded = DecodedImages(catalogue, settings.eval_image_size, decoders)
        search_model = create_search_model(model, pretrained, images, settings, decoded)
    facts = _facts(triplets, images, module, init_bundle) | {"epochs": str(num_epochs)}
    bundle = Bundle.save(folder, search_model, settings.model, Preprocessing(size=settings.eval_image_size), facts)
    if resume:
        resume.remove()
    return bundle


def training_key(triplets: Triplets, settings: TrainSettings, init_bundle: Bundle | None = None) -> str:
    """Return the identity of a training: a hash of code, settings, triplets, catalogue and initial weights."""
    rows = pd.util.hash_pandas_object(triplets.frame, index=False).to_numpy().tobytes()
    code = [hash_file(file) for package in HASHED_PACKAGES for file in sorted((PACKAGE / package).glob("*.py"))]
    text = "".join([*code, settings.model_dump_json(), triplets.fingerprint, init_bundle.weights_hash if init_bundle else ""])
    return hashlib.sha256(text.encode() + rows).hexdigest()[:16]


def _require_val_triplets(triplets: Triplets, settings: TrainSettings) -> None:
    """Refuse settings that need validation if there is nothing to validate on."""
    if len(triplets.in_split("val")):
        return
    if settings.early_stopping_patience:
        raise ConfigError("train.early_stopping_patience: it needs the val split, which has no triplet here; set it to 0")
    if settings.scheduler.needs_validation:
        raise ConfigError(f"train.scheduler: {settings.scheduler.name} needs the val split, which has no triplet here; take another one")


def _train(
    module: TrainingModule, data: TrainingData, triplets: Triplets, reporter: Reporter, resume: ResumeCheckpoint | None
) -> tuple[EmbeddingModel, int]:
    """Train; returns the averaged weights (of the best epoch with early stopping) in evaluation mode, and the number of epochs."""
    settings = module.settings
    averaging = WeightAveraging(module.model, settings.ema_decay) if settings.ema_decay else None
    model = averaging.average if averaging else module.model

    def validate_model() -> dict[str, float]:
        if "val" in settings.splits:
            return {}
        return validate(InferenceModel(model, module.precision), Preprocessing(size=settings.eval_image_size), data.catalogue, triplets)

    report = EpochReport(reporter, validate_model)
    stopping = EarlyStoppingWithBestWeights(model, settings.early_stopping_patience) if settings.early_stopping_patience else None
    _run_trainer(module, data, [ProgressBar(), CollapseCheck(), averaging, report, stopping], resume)
    if stopping:
        model.load_state_dict(stopping.best_weights)
    return model.eval(), report.num_epochs


def _run_trainer(
    module: TrainingModule, data: TrainingData, callbacks: Iterable[pl.Callback | None], resume: ResumeCheckpoint | None
) -> None:
    """Train, from the checkpoint if it exists."""
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    trainer = pl.Trainer(
        max_epochs=module.settings.epochs,
        devices=1,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[callback for callback in (*callbacks, resume) if callback is not None],
        logger=False,
        enable_checkpointing=resume is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        # A CPU is deterministic as it is; a GPU warns about operations without a deterministic version.
        deterministic=None if device().type == "cpu" else "warn",
    )
    with warnings.catch_warnings():
        # Images are decoded on threads, because Lance must not be forked; and Lightning uses what torch deprecates.
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|in eval mode).*")
        trainer.fit(module, datamodule=data, ckpt_path=resume.file if resume and resume.file.exists() else None, weights_only=True)


def _facts(triplets: Triplets, images: TrainingImages, module: TrainingModule, init_bundle: Bundle | None) -> dict[str, str]:
    """Return the facts about a training that its bundle keeps."""
    return {
        "catalogue": triplets.fingerprint,
        "images": str(len(images.rows)),
        "classes": str(len(images.class_codes)),
        "losses": ", ".join(loss.name for loss in module.settings.losses),
        "seed": str(module.settings.seed),
        "bf16": ", ".join(name for name, bf16 in asdict(module.precision).items() if bf16) or "none",
        "init": init_bundle.weights_hash if init_bundle else "pretrained",
    }

"""Setup of a training: model, losses, GPUs, precision and initial weights; and the search model after it."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ConfigError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, EmbeddingModel, SearchModel
from deeprank.models.familiarity import MAX_REFERENCE_IMAGES
from deeprank.models.inference import BATCH_SIZE, device
from deeprank.training.data import DecodedImages, TrainingImages
from deeprank.training.initialization import init_from_bundle, init_head_from_pca
from deeprank.training.losses import WeightedLosses
from deeprank.training.module import TrainingModule
from deeprank.training.precision import select_precision
from deeprank.training.settings import TrainSettings


def create_module(
    catalogue: Catalogue, images: TrainingImages, settings: TrainSettings, init_bundle: Bundle | None
) -> tuple[TrainingModule, nn.Module | None]:
    """Return the training module with its initial weights, and a copy of the pretrained trainable stages if search uses them.

    Args:
        catalogue: that holds the images.
        images: that are trained on.
        settings: of the training.
        init_bundle: the trained model to start from; None: start from the pretrained weights.

    Raises:
        ConfigError: there is no such model, weights or loss, or fewer GPUs than set.
        ModelError: the bundle to start from is damaged, or has another architecture.

    """
    model = EmbeddingModel(settings.model).to(device()).to(memory_format=torch.channels_last)
    pretrained = copy.deepcopy(model.trainable) if settings.model.pretrained_share else None
    criterion = WeightedLosses(settings.losses, torch.from_numpy(images.class_codes), model.embedding_dim).to(device())
    gpus = _select_gpus(settings)
    size = settings.train_image_sizes[0]
    precision = select_precision(settings.precision, model, size)
    # The choice for the frozen stages: its speed-up is far from the limit, so that equal trainings start from equal weights.
    init_precision = replace(precision, inference=precision.frozen)
    if init_bundle:
        init_from_bundle(model, settings.model, init_bundle, criterion, catalogue, images, size, init_precision)
    elif settings.init_head == "pca" and settings.model.weights != "none":
        init_head_from_pca(model, criterion, catalogue, images, size, init_precision)
    return TrainingModule(model, criterion, settings, precision, gpus), pretrained


def _select_gpus(settings: TrainSettings) -> list[int]:
    available = torch.cuda.device_count()
    requested = available if settings.devices == "auto" else settings.devices
    if requested > max(available, 1):
        raise ConfigError(f"train.devices: {requested} GPUs are set, but this machine has {available}; lower it, or set auto")
    return list(range(min(requested, available)))


def create_search_model(
    model: EmbeddingModel, pretrained: nn.Module | None, images: TrainingImages, settings: TrainSettings, decoded: DecodedImages
) -> Embedder:
    """Return the model that searches with the result of a training.

    Args:
        model: with the weights after the training.
        pretrained: the trainable stages with the weights before the training; None: search uses the trained model alone.
        images: that were trained on; some of them set the scale of familiarity.
        settings: of the training.
        decoded: the images at the size of search.

    """
    if pretrained is None:
        return model
    search = SearchModel(model, pretrained, settings.model.pretrained_share).to(device()).to(memory_format=torch.channels_last)
    # One image of each duplicate group: next to a near-duplicate, every other image would be unfamiliar.
    rows = images.rows[~decoded.catalogue.frame["duplicate_group"].iloc[images.rows].duplicated().to_numpy()]
    rows = rows[:: math.ceil(len(rows) / MAX_REFERENCE_IMAGES)]
    batches: Iterator[Tensor] = (decoded(batch) for batch in np.array_split(rows, math.ceil(len(rows) / BATCH_SIZE)))
    search.fit_familiarity(batches)
    return search

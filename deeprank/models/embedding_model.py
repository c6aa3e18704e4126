"""Models that turn images into embeddings of unit length: the model that is trained, and the model that searches."""

import copy
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, normalize

from deeprank.errors import ConfigError
from deeprank.models.backbone import create_backbone, fold_norms, split_stages
from deeprank.settings import Settings

# Output size of each of the two projections: with a learned embedding of 128, a search embedding has 512 dimensions.
PROJECTION_DIM = 192


class ModelSettings(Settings):
    """Architecture and initial weights of a model.

    Attributes:
        backbone: any timm model.
        weights: initial weights: package, hub, file:PATH or none; see `create_backbone`.
        embedding_dim: size of the learned embedding; with pretrained_share above 0 the search embedding is longer. 0: the features of
            the backbone are the embedding (the frozen baseline).
        frozen_stages: number of first stages of the backbone that are not trained (1: the stem; n: the stem and n - 1 more).
        hidden_dims: sizes of fully connected layers with ReLU and dropout between backbone and embedding (the paper: 4096, 4096).
        dropout: dropout probability after each of these layers.
        multiscale: add two shallow branches that get the image at low resolution (the paper).
        pretrained_share: share of the search embedding for backbone features, half from before and half from after training; they help
            on classes that were not trained on. 0: none.

    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "package"
    embedding_dim: int = Field(128, ge=0)
    frozen_stages: int = Field(3, ge=0)
    hidden_dims: tuple[int, ...] = ()
    dropout: float = Field(0.0, ge=0, lt=1)
    multiscale: bool = False
    pretrained_share: float = Field(0.4, ge=0, lt=1)


class LowResolutionBranches(nn.Module):
    """The paper's two shallow branches on the image subsampled 4:1 and 8:1.

    Each branch has 96 filters of 8 x 8, pooled to 4 x 4; its output has unit length. The subsampled images have 57 and 29 pixels
    a side as in the paper, for any input size.

    Source: Wang et al. 2014, figure 3.
    """

    num_features = 2 * 96 * 4 * 4

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 96, 8, stride=4, padding=4), nn.ReLU(), nn.MaxPool2d(3, stride=4), nn.Flatten())
        self.coarse = nn.Sequential(nn.Conv2d(3, 96, 8, stride=4, padding=4), nn.ReLU(), nn.MaxPool2d(7, 2, padding=3), nn.Flatten())

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (n, num_features) of normalized pixels (n, 3, s, s)."""
        # With antialiasing every pixel counts; a stride larger than the kernel would skip most pixels.
        subsampled = [interpolate(pixels, size=(side, side), mode="bilinear", antialias=True) for side in (57, 29)]
        branches = (self.fine, self.coarse)
        return torch.cat([normalize(branch(image)) for branch, image in zip(branches, subsampled, strict=True)], dim=1)


class Embedder(nn.Module):
    """Base of modules that turn images, uint8 (n, 3, s, s), into embeddings, float32 (n, embedding_dim)."""

    embedding_dim: int


class EmbeddingModel(Embedder):
    """The model that is trained: images, uint8 (n, 3, s, s), to embeddings of unit length, float32 (n, embedding_dim).

    Attributes:
        frozen: the stages of the backbone whose weights are not trained.
        trainable: the other stages; images pass `frozen`, then `trainable`.
        num_features: number of pooled features of the backbone.
        hidden_layers: fully connected layers between backbone and head; may be empty.
        low_resolution: the low-resolution branches of a multiscale model, else None.
        head: the linear layer to the embedding; identity for embedding_dim 0.

    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        backbone, mean, std = create_backbone(settings.backbone, settings.weights)
        stages = split_stages(fold_norms(backbone))
        if settings.embedding_dim and settings.frozen_stages >= len(stages):
            raise ConfigError(
                f"model.frozen_stages: {settings.frozen_stages} leaves no stage to train: {settings.backbone} has {len(stages)} stages; "
                "lower it"
            )
        self.frozen = nn.Sequential(*stages[: settings.frozen_stages])
        self.trainable = nn.Sequential(*stages[settings.frozen_stages :])
        self.frozen.requires_grad_(False)
        self.eval()
        with torch.no_grad():
            self.num_features = in_features = self.trainable(self.frozen(torch.zeros(1, 3, 96, 96))).shape[1]
        self.hidden_layers = nn.Sequential()
        for hidden_dim in settings.hidden_dims:
            self.hidden_layers.extend([nn.Linear(in_features, hidden_dim), nn.ReLU(), nn.Dropout(settings.dropout)])
            in_features = hidden_dim
        self.low_resolution = LowResolutionBranches() if settings.multiscale else None
        in_features += LowResolutionBranches.num_features if settings.multiscale else 0
        self.head: nn.Module = nn.Linear(in_features, settings.embedding_dim) if settings.embedding_dim else nn.Identity()
        self.embedding_dim = settings.embedding_dim or in_features
        # Images have pixels in 0..255, so mean and deviation are multiplied by 255.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def train(self, mode: bool = True) -> "EmbeddingModel":
        """Set training mode as `nn.Module.train` does; norms that could not be folded stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def normalize_pixels(self, images: Tensor) -> Tensor:
        """Return normalized pixels of a batch; `images` may be uint8 or float in 0..255."""
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def embed_features(self, pixels: Tensor, features: Tensor) -> Tensor:
        """Return the embeddings for normalized pixels (n, 3, s, s) and their pooled backbone features (n, num_features)."""
        outputs = self.hidden_layers(features)
        if self.low_resolution is not None:
            outputs = torch.cat([normalize(outputs.float()), self.low_resolution(pixels)], dim=1)
        return normalize(self.head(outputs).float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        pixels = self.normalize_pixels(images)
        return self.embed_features(pixels, self.trainable(self.frozen(pixels)))


class Projection(nn.Module):
    """Center backbone features, project them at random to fewer dimensions, and scale them to unit length.

    The projection preserves angles approximately; the rows of its matrix are orthonormal.

    Source: Johnson and Lindenstrauss 1984.
    """

    center: Tensor
    matrix: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        noise = torch.randn(num_features, min(PROJECTION_DIM, num_features), generator=torch.Generator().manual_seed(0))
        self.register_buffer("center", torch.zeros(num_features))
        self.register_buffer("matrix", torch.linalg.qr(noise)[0].T.contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, PROJECTION_DIM or fewer) of features (n, num_features)."""
        return normalize(linear(normalize(features.float()) - self.center, self.matrix), dim=1)


class SearchModel(Embedder):
    """The model that searches: the learned embedding beside projected backbone features before and after training.

    Both versions of the backbone share the frozen stages. The squared distance of two images is the sum of the squared distances of
    the three parts, each multiplied by its share.

    Attributes:
        finetuned: the trained model.
        pretrained: the trainable stages of the backbone with their weights from before training.
        pretrained_projection, finetuned_projection: projections of the features of `pretrained` and of `finetuned`.
        pretrained_share: share of the two projections together.

    """

    def __init__(self, finetuned: EmbeddingModel, pretrained: nn.Module, pretrained_share: float) -> None:
        super().__init__()
        self.finetuned, self.pretrained, self.pretrained_share = finetuned, pretrained.requires_grad_(False), pretrained_share
        self.pretrained_projection = Projection(finetuned.num_features)
        self.finetuned_projection = Projection(finetuned.num_features)
        projections = (self.pretrained_projection, self.finetuned_projection)
        self.embedding_dim = finetuned.embedding_dim + sum(projection.matrix.shape[0] for projection in projections)

    @torch.inference_mode()
    def fit_centers(self, batches: Iterable[Tensor]) -> None:
        """Set the centers of both projections to the mean features of batches of images, uint8 (n, 3, s, s)."""
        pretrained, finetuned = [], []
        for images in batches:
            shared = self.finetuned.frozen(self.finetuned.normalize_pixels(images.to(self.finetuned.mean.device)))
            pretrained.append(normalize(self.pretrained(shared).float()))
            finetuned.append(normalize(self.finetuned.trainable(shared).float()))
        self.pretrained_projection.center.copy_(torch.cat(pretrained).mean(0))
        self.finetuned_projection.center.copy_(torch.cat(finetuned).mean(0))

    def pretrained_embeddings(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the columns of embeddings (n, d) that come from the pretrained features, scaled to unit length."""
        start = self.finetuned.embedding_dim
        columns = embeddings[:, start : start + self.pretrained_projection.matrix.shape[0]]
        scaled: npt.NDArray[np.float32] = columns / np.linalg.norm(columns, axis=1, keepdims=True)
        return scaled

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        pixels = self.finetuned.normalize_pixels(images)
        shared = self.finetuned.frozen(pixels)
        features = self.finetuned.trainable(shared)
        shares = (1 - self.pretrained_share, self.pretrained_share / 2, self.pretrained_share / 2)
        learned = self.finetuned.embed_features(pixels, features)
        blocks = (learned, self.pretrained_projection(self.pretrained(shared)), self.finetuned_projection(features))
        return torch.cat([share**0.5 * block for share, block in zip(shares, blocks, strict=True)], dim=1)


def create_model(settings: ModelSettings) -> Embedder:
    """Return the model that searches: an EmbeddingModel, or a SearchModel if `pretrained_share` is above 0."""
    model = EmbeddingModel(settings)
    return SearchModel(model, copy.deepcopy(model.trainable), settings.pretrained_share) if settings.pretrained_share else model

"""The nets that turn images into embeddings of unit length: the one that is trained, and the one that searches."""

import copy
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, normalize

from deeprank.errors import ConfigError
from deeprank.models.backbone import create_backbone, fold_norms, stages
from deeprank.settings import Settings

# Of each of the two projections of general features: with a learned embedding of 128, an embedding has 512 dimensions.
PROJECTION_DIM = 192


class ModelSettings(Settings):
    """Which net.

    Attributes:
        backbone: any timm model.
        weights: see `create_backbone`.
        embedding_dim: of the learned embedding; 0 keeps the ConvNet's own features (the frozen baseline).
        frozen_stages: so many of the ConvNet's first stages keep their weights (1: the stem; n: n - 1 more).
        hidden_dims: widths of fully connected layers with ReLU and dropout between the ConvNet and the embedding (the paper: two of 4096).
        dropout: after each of them.
        multiscale: two shallow branches see the image at low resolution beside the ConvNet (the paper).
        pretrained_share: share of the search embedding that is given to general features, those of the ConvNet before training and
            after it, half each, so that images of kinds it was not trained on are still found; 0: none.

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
    """The paper's shallow branches: the image subsampled 4:1 and 8:1, 96 filters of 8 x 8, pooled to 4 x 4, unit length each.

    Source: Wang et al. 2014, figure 3. The pictures have 57 and 29 pixels a side, as there, whatever the input's size.
    """

    width = 2 * 96 * 4 * 4

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 96, 8, stride=4, padding=4), nn.ReLU(), nn.MaxPool2d(3, stride=4), nn.Flatten())
        self.coarse = nn.Sequential(nn.Conv2d(3, 96, 8, stride=4, padding=4), nn.ReLU(), nn.MaxPool2d(7, 2, padding=3), nn.Flatten())

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (n, width) of normalised pixels (n, 3, s, s)."""
        # Antialiased: every pixel of the image counts, where a stride beyond the kernel skips most of them.
        small = [interpolate(pixels, size=(side, side), mode="bilinear", antialias=True) for side in (57, 29)]
        return torch.cat([normalize(branch(one)) for branch, one in zip((self.fine, self.coarse), small, strict=True)], dim=1)


class Embedder(nn.Module):
    """Anything that turns images, uint8 (n, 3, s, s), into rows of `dimensions` numbers, float32."""

    embedding_dim: int


class EmbeddingModel(Embedder):
    """Images as uint8 (n, 3, s, s) → embeddings float32 (n, d) of unit length: what is trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        backbone, mean, std = create_backbone(settings.backbone, settings.weights)
        parts = stages(fold_norms(backbone))
        if settings.embedding_dim and settings.frozen_stages >= len(parts):
            raise ConfigError(
                f"model.frozen_stages: {settings.frozen_stages} leaves nothing to learn: {settings.backbone} has {len(parts)} stages"
            )
        self.lower, self.upper = nn.Sequential(*parts[: settings.frozen_stages]), nn.Sequential(*parts[settings.frozen_stages :])
        self.lower.requires_grad_(False)
        self.eval()
        with torch.no_grad():
            self.width = width = self.upper(self.lower(torch.zeros(1, 3, 96, 96))).shape[1]
        self.hidden_layers = nn.Sequential()
        for wide in settings.hidden_dims:
            self.hidden_layers.extend([nn.Linear(width, wide), nn.ReLU(), nn.Dropout(settings.dropout)])
            width = wide
        self.low_resolution = LowResolutionBranches() if settings.multiscale else None
        width += LowResolutionBranches.width if settings.multiscale else 0
        self.head: nn.Module = nn.Linear(width, settings.embedding_dim) if settings.embedding_dim else nn.Identity()
        self.embedding_dim = settings.embedding_dim or width
        # Pixels are 0..255: the scale is folded into mean and deviation.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def train(self, mode: bool = True) -> "EmbeddingModel":
        """As of any module; but norms that could not be folded keep their statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def pixels(self, images: Tensor) -> Tensor:
        """Normalise a batch; `images` may be uint8 or float in 0..255."""
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def embed(self, pixels: Tensor, features: Tensor) -> Tensor:
        """Return the embeddings of normalised pixels and the ConvNet's pooled features (n, width) of them."""
        found = self.hidden_layers(features)
        if self.low_resolution is not None:
            found = torch.cat([normalize(found.float()), self.low_resolution(pixels)], dim=1)
        return normalize(self.head(found).float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        pixels = self.pixels(images)
        return self.embed(pixels, self.upper(self.lower(pixels)))


class Projection(nn.Module):
    """General features → their centered, randomly projected, unit-length image: angles stay, dimensions go.

    Source: Johnson and Lindenstrauss 1984; rows of the matrix are orthonormal.
    """

    center: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        noise = torch.randn(width, min(PROJECTION_DIM, width), generator=torch.Generator().manual_seed(0))
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("matrix", torch.linalg.qr(noise)[0].T.contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, GENERAL) of features (n, width)."""
        return normalize(linear(normalize(features.float()) - self.center, self.matrix), dim=1)


class SearchModel(Embedder):
    """Images → embeddings of what was learned beside what was known: the trained net, and a copy of its upper stages
    from before training; both share the stages that never changed.

    The squared distance of two images is the sum of the parts' squared distances, each with its share.
    """  # noqa: D205

    def __init__(self, tuned: EmbeddingModel, original: nn.Module, pretrained_share: float) -> None:
        super().__init__()
        self.tuned, self.original, self.pretrained_share = tuned, original.requires_grad_(False), pretrained_share
        self.before, self.after = Projection(tuned.width), Projection(tuned.width)
        self.embedding_dim = tuned.embedding_dim + sum(projection.matrix.shape[0] for projection in (self.before, self.after))

    @torch.inference_mode()
    def center(self, images: Iterable[Tensor]) -> None:
        """Take the mean of the general features of batches of images as the projections' center."""
        before, after = [], []
        for batch in images:
            shared = self.tuned.lower(self.tuned.pixels(batch.to(self.tuned.mean.device)))
            before.append(normalize(self.original(shared).float()))
            after.append(normalize(self.tuned.upper(shared).float()))
        self.before.center.copy_(torch.cat(before).mean(0))
        self.after.center.copy_(torch.cat(after).mean(0))

    def before_training(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what embeddings (n, d) hold of the ConvNet's features before training, of unit length."""
        start = self.tuned.embedding_dim
        part = embeddings[:, start : start + self.before.matrix.shape[0]]
        unit: npt.NDArray[np.float32] = part / np.linalg.norm(part, axis=1, keepdims=True)
        return unit

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        pixels = self.tuned.pixels(images)
        shared = self.tuned.lower(pixels)
        features = self.tuned.upper(shared)
        learned, half = 1 - self.pretrained_share, self.pretrained_share / 2
        parts = (self.tuned.embed(pixels, features), self.before(self.original(shared)), self.after(features))
        return torch.cat([share**0.5 * part for share, part in zip((learned, half, half), parts, strict=True)], dim=1)


def create_model(settings: ModelSettings) -> Embedder:
    """Return the net that searches: the trained one alone, or beside what it was."""
    model = EmbeddingModel(settings)
    return SearchModel(model, copy.deepcopy(model.upper), settings.pretrained_share) if settings.pretrained_share else model

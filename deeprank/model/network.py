"""The nets that turn photographs into embeddings of unit length: the one that is trained, and the one that searches."""

import copy
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, normalize

from deeprank.errors import ConfigError
from deeprank.model.backbone import create_backbone, fold_norms, stages
from deeprank.settings import Settings

# Of each of the two projections of general features: with a learnt embedding of 128, an embedding has 512 dimensions.
GENERAL = 192


class NetworkSettings(Settings):
    """Which net.

    Attributes:
        backbone: any timm model.
        weights: see `create_backbone`.
        dimensions: of the learnt embedding; 0 keeps the ConvNet's own features (the frozen baseline).
        frozen_stages: so many of the ConvNet's first stages keep their weights (1: the stem; n: n - 1 more).
        hidden: widths of fully connected layers with ReLU and dropout between the ConvNet and the embedding (the paper: two of 4096).
        dropout: after each of them.
        multiscale: two shallow branches see the photograph at low resolution beside the ConvNet (the paper).
        general: share of the search embedding that is given to general features, those of the ConvNet before training and
            after it, half each, so that photographs of kinds it was not trained on are still found; 0: none.

    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "package"
    dimensions: int = Field(128, ge=0)
    frozen_stages: int = Field(3, ge=0)
    hidden: tuple[int, ...] = ()
    dropout: float = Field(0.0, ge=0, lt=1)
    multiscale: bool = False
    general: float = Field(0.4, ge=0, lt=1)


class LowResolution(nn.Module):
    """The paper's shallow branches: the photograph subsampled 4:1 and 8:1, 96 filters of 8 x 8, pooled to 4 x 4, unit length each.

    Source: Wang et al. 2014, figure 3. The pictures have 57 and 29 pixels a side, as there, whatever the input's size.
    """

    width = 2 * 96 * 4 * 4

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 96, 8, stride=4, padding=4), nn.ReLU(), nn.MaxPool2d(3, stride=4), nn.Flatten())
        self.coarse = nn.Sequential(nn.Conv2d(3, 96, 8, stride=4, padding=4), nn.ReLU(), nn.MaxPool2d(7, 2, padding=3), nn.Flatten())

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (n, width) of normalised pixels (n, 3, s, s)."""
        # Antialiased: every pixel of the photograph counts, where a stride beyond the kernel skips most of them.
        small = [interpolate(pixels, size=(side, side), mode="bilinear", antialias=True) for side in (57, 29)]
        return torch.cat([normalize(branch(one)) for branch, one in zip((self.fine, self.coarse), small, strict=True)], dim=1)


class Embedder(nn.Module):
    """Anything that turns photographs, uint8 (n, 3, s, s), into rows of `dimensions` numbers, float32."""

    dimensions: int


class EmbeddingNet(Embedder):
    """Photographs as uint8 (n, 3, s, s) → embeddings float32 (n, d) of unit length: what is trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        backbone, mean, std = create_backbone(settings.backbone, settings.weights)
        parts = stages(fold_norms(backbone))
        if settings.dimensions and settings.frozen_stages >= len(parts):
            raise ConfigError(
                f"network.frozen_stages: {settings.frozen_stages} leaves nothing to learn: {settings.backbone} has {len(parts)} stages"
            )
        self.lower, self.upper = nn.Sequential(*parts[: settings.frozen_stages]), nn.Sequential(*parts[settings.frozen_stages :])
        self.lower.requires_grad_(False)
        self.eval()
        with torch.no_grad():
            self.width = width = self.upper(self.lower(torch.zeros(1, 3, 96, 96))).shape[1]
        self.hidden = nn.Sequential()
        for wide in settings.hidden:
            self.hidden.extend([nn.Linear(width, wide), nn.ReLU(), nn.Dropout(settings.dropout)])
            width = wide
        self.low_resolution = LowResolution() if settings.multiscale else None
        width += LowResolution.width if settings.multiscale else 0
        self.head: nn.Module = nn.Linear(width, settings.dimensions) if settings.dimensions else nn.Identity()
        self.dimensions = settings.dimensions or width
        # Pixels are 0..255: the scale is folded into mean and deviation.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def train(self, mode: bool = True) -> "EmbeddingNet":
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
        found = self.hidden(features)
        if self.low_resolution is not None:
            found = torch.cat([normalize(found.float()), self.low_resolution(pixels)], dim=1)
        return normalize(self.head(found).float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        pixels = self.pixels(images)
        return self.embed(pixels, self.upper(self.lower(pixels)))


class Projection(nn.Module):
    """General features → their centred, randomly projected, unit-length image: angles stay, dimensions go.

    Source: Johnson and Lindenstrauss 1984; rows of the matrix are orthonormal.
    """

    centre: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        noise = torch.randn(width, min(GENERAL, width), generator=torch.Generator().manual_seed(0))
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("matrix", torch.linalg.qr(noise)[0].T.contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, GENERAL) of features (n, width)."""
        return normalize(linear(normalize(features.float()) - self.centre, self.matrix), dim=1)


class SearchNet(Embedder):
    """Photographs → embeddings of what was learnt beside what was known: the trained net, and a copy of its upper stages
    from before training; both share the stages that never changed.

    The squared distance of two photographs is the sum of the parts' squared distances, each with its share.
    """  # noqa: D205

    def __init__(self, tuned: EmbeddingNet, original: nn.Module, general: float) -> None:
        super().__init__()
        self.tuned, self.original, self.general = tuned, original.requires_grad_(False), general
        self.before, self.after = Projection(tuned.width), Projection(tuned.width)
        self.dimensions = tuned.dimensions + sum(projection.matrix.shape[0] for projection in (self.before, self.after))

    @torch.inference_mode()
    def centre(self, images: Iterable[Tensor]) -> None:
        """Take the mean of the general features of batches of photographs as the projections' centre."""
        before, after = [], []
        for batch in images:
            shared = self.tuned.lower(self.tuned.pixels(batch.to(self.tuned.mean.device)))
            before.append(normalize(self.original(shared).float()))
            after.append(normalize(self.tuned.upper(shared).float()))
        self.before.centre.copy_(torch.cat(before).mean(0))
        self.after.centre.copy_(torch.cat(after).mean(0))

    def before_training(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what embeddings (n, d) hold of the ConvNet's features before training, of unit length."""
        start = self.tuned.dimensions
        part = embeddings[:, start : start + self.before.matrix.shape[0]]
        unit: npt.NDArray[np.float32] = part / np.linalg.norm(part, axis=1, keepdims=True)
        return unit

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        pixels = self.tuned.pixels(images)
        shared = self.tuned.lower(pixels)
        features = self.tuned.upper(shared)
        learnt, half = 1 - self.general, self.general / 2
        parts = (self.tuned.embed(pixels, features), self.before(self.original(shared)), self.after(features))
        return torch.cat([share**0.5 * part for share, part in zip((learnt, half, half), parts, strict=True)], dim=1)


def create_network(settings: NetworkSettings) -> Embedder:
    """Return the net that searches: the trained one alone, or beside what it was."""
    net = EmbeddingNet(settings)
    return SearchNet(net, copy.deepcopy(net.upper), settings.general) if settings.general else net

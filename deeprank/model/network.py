"""The net that turns photographs into embeddings: a ConvNet, a linear head, unit length."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from deeprank.model.backbone import create_backbone
from deeprank.settings import Settings


class NetworkSettings(Settings):
    """Which net.

    Attributes:
        backbone: any timm model.
        weights: see `create_backbone`.
        dimensions: of the embedding; 0 keeps the ConvNet's own features (the frozen baseline).

    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "package"
    dimensions: int = Field(256, ge=0)


class EmbeddingNet(nn.Module):
    """Photographs as uint8 (n, 3, s, s) → embeddings float32 (n, d) of unit length."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.backbone, mean, std = create_backbone(settings.backbone, settings.weights)
        width = int(self.backbone.head_hidden_size)  # type: ignore[arg-type]
        self.head: nn.Module = nn.Linear(width, settings.dimensions) if settings.dimensions else nn.Identity()
        self.dimensions = settings.dimensions or width
        # Pixels are 0..255: the scale is folded into mean and deviation.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch; `images` may be uint8 or float in 0..255."""
        pixels = (images.float() - self.mean) / self.std
        features = self.backbone(pixels.contiguous(memory_format=torch.channels_last))
        return normalize(self.head(features).float(), dim=1)

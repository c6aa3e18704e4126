"""What training does to a photograph: geometry one by one while decoding, light and colour for a whole batch at once."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torchvision.transforms.v2 import functional as F

from deeprank.model.preprocessing import decode
from deeprank.settings import Settings

# Rec. 601 luma weights: what saturation leaves alone.
LUMA = torch.tensor([0.299, 0.587, 0.114])


class AugmentSettings(Settings):
    """How strongly to augment; each range is drawn from uniformly.

    Attributes:
        smallest_crop: share of the area that a crop keeps at least (1: the whole photograph).
        stretch: aspect ratio of a crop lies within 1/stretch .. stretch.
        flip: probability of a left-right flip.
        turn: degrees; a photograph is turned by an angle within -turn .. turn.
        brightness, contrast, saturation: factors lie within 1 - x .. 1 + x.
        tint: each colour channel's own factor lies within 1 - x .. 1 + x (shops differ in the colour of their light).

    """

    smallest_crop: float = Field(0.4, gt=0, le=1)
    stretch: float = Field(4 / 3, ge=1)
    flip: float = Field(0.5, ge=0, le=1)
    turn: float = Field(15.0, ge=0, le=180)
    brightness: float = Field(0.3, ge=0, lt=1)
    contrast: float = Field(0.3, ge=0, lt=1)
    saturation: float = Field(0.3, ge=0, lt=1)
    tint: float = Field(0.1, ge=0, lt=1)


def crop_and_flip(jpeg: bytes, size: int, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Decode a stored photograph and return a random crop of it as uint8 (3, size, size)."""
    image = decode(jpeg)
    height, width = image.shape[1:]
    area = height * width * rng.uniform(settings.smallest_crop, 1)
    ratio = np.exp(rng.uniform(-np.log(settings.stretch), np.log(settings.stretch)))
    crop_width = min(width, max(1, round(np.sqrt(area * ratio))))
    crop_height = min(height, max(1, round(np.sqrt(area / ratio))))
    top, left = rng.integers(0, height - crop_height + 1), rng.integers(0, width - crop_width + 1)
    image = F.resized_crop(image, int(top), int(left), crop_height, crop_width, [size, size], antialias=True)
    return F.horizontal_flip(image) if rng.random() < settings.flip else image


def turn(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Turn each photograph of a float batch (n, 3, s, s) about its middle; the corners are filled by reflection."""
    if not settings.turn:
        return images
    angle = torch.from_numpy(np.radians(rng.uniform(-settings.turn, settings.turn, len(images))).astype(np.float32)).to(images.device)
    zero = torch.zeros_like(angle)
    rows = [torch.stack([angle.cos(), -angle.sin(), zero], 1), torch.stack([angle.sin(), angle.cos(), zero], 1)]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def change_light(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, saturation and tint of each photograph of a batch by one 3 x 4 matrix each.

    Args:
        images: uint8 or float (n, 3, s, s) in 0..255.
        settings: how strongly.
        rng: the same generator state gives the same result.

    Returns:
        float32 (n, 3, s, s) in 0..255.

    """
    n = len(images)

    def factors(spread: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(1 - spread, 1 + spread, (n, *shape)).astype(np.float32)).to(images.device)

    pixels = images.float()
    saturation = factors(settings.saturation, 1, 1)
    grey = LUMA.to(images.device).expand(3, 3)
    matrix = saturation * torch.eye(3, device=images.device) + (1 - saturation) * grey
    matrix = factors(settings.tint, 3, 1) * factors(settings.brightness, 1, 1) * matrix
    contrast = factors(settings.contrast, 1, 1)
    mean = pixels.mean(dim=(2, 3)).unsqueeze(2)
    offset = (1 - contrast) * (matrix @ mean)
    # baddbmm over flattened pixels applies all of it in one pass over memory.
    changed = torch.baddbmm(offset, contrast * matrix, pixels.flatten(2))
    return changed.clamp_(0, 255).view_as(pixels)

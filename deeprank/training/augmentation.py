"""Augmentation of a whole batch: all geometry in one resampling, all color changes in one matrix per image."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from deeprank.data.images import MAX_SHORT_SIDE
from deeprank.settings import Settings

# Rec. 601 luma weights; a change of saturation keeps the luma.
LUMA = torch.tensor([0.299, 0.587, 0.114])


class AugmentSettings(Settings):
    """Ranges of the augmentation; each value is drawn uniformly from its range.

    Attributes:
        crop_scale: minimum area of a crop, as a share of the square that search uses (1: all of it).
        crop_ratio: the aspect ratio of a crop is between 1/crop_ratio and crop_ratio.
        flip: probability of a horizontal flip.
        rotation: maximum rotation in degrees; the angle is between -x and x.
        shear: maximum shear in degrees; the angle is between -x and x.
        brightness: maximum change of brightness; its factor is between 1 - x and 1 + x.
        contrast: maximum change of contrast; its factor is between 1 - x and 1 + x.
        saturation: maximum change of saturation; its factor is between 1 - x and 1 + x.
        channel_gain: maximum change of a color channel; its factor is between 1 - x and 1 + x (the color of the
            light differs between shops).

    """

    crop_scale: float = Field(0.4, gt=0, le=1)
    crop_ratio: float = Field(4 / 3, ge=1)
    flip: float = Field(0.5, ge=0, le=1)
    rotation: float = Field(15.0, ge=0, le=180)
    shear: float = Field(0.0, ge=0, lt=90)
    brightness: float = Field(0.3, ge=0, lt=1)
    contrast: float = Field(0.3, ge=0, lt=1)
    saturation: float = Field(0.3, ge=0, lt=1)
    channel_gain: float = Field(0.1, ge=0, lt=1)


def decoded_size(crop_size: int) -> int:
    """Return the pixels per side of a decoded image before the crop: a fifth more than the crop, at most the stored size."""
    return min(MAX_SHORT_SIDE, round(1.2 * crop_size))


def random_affine_crop(images: Tensor, size: int, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Crop, flip, rotate and shear each image of a batch in one resampling; pixels beyond the edge are reflected.

    Args:
        images: float (n, 3, s, s).
        size: pixels per side of the result.
        settings: ranges.
        rng: the same state gives the same result.

    Returns:
        Float (n, 3, size, size).

    """
    n = len(images)
    side = np.sqrt(rng.uniform(settings.crop_scale, 1, n))
    aspect = np.exp(rng.uniform(-1, 1, n) * np.log(settings.crop_ratio) / 2)
    width, height = np.minimum(side * aspect, 1), np.minimum(side / aspect, 1)
    left, top = rng.uniform(-1, 1, (2, n)) * (1 - np.stack([width, height]))
    flip = np.where(rng.random(n) < settings.flip, -1, 1)
    angle, shear = np.radians(rng.uniform(-1, 1, (2, n)) * [[settings.rotation], [settings.shear]])
    slope = np.tan(shear)
    # Maps positions in the result to positions in the image, both in -1..1.
    rows = [
        [width * flip * np.cos(angle), width * (slope * np.cos(angle) - np.sin(angle)), left],
        [height * flip * np.sin(angle), height * (slope * np.sin(angle) + np.cos(angle)), top],
    ]
    matrix = torch.from_numpy(np.array(rows, dtype=np.float32)).permute(2, 0, 1).to(images.device)
    grid = affine_grid(matrix, [n, 3, size, size], align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def color_jitter(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, saturation and channel gains of each image of a batch by one 3 x 4 matrix.

    Args:
        images: uint8 or float (n, 3, s, s) in 0..255.
        settings: ranges.
        rng: the same state gives the same result.

    Returns:
        Float32 (n, 3, s, s) in 0..255.

    """
    n = len(images)

    def draw_factors(max_change: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(1 - max_change, 1 + max_change, (n, *shape)).astype(np.float32)).to(images.device)

    pixels = images.float()
    saturation = draw_factors(settings.saturation, 1, 1)
    gray = LUMA.to(images.device).expand(3, 3)
    matrix = saturation * torch.eye(3, device=images.device) + (1 - saturation) * gray
    matrix = draw_factors(settings.channel_gain, 3, 1) * draw_factors(settings.brightness, 1, 1) * matrix
    contrast = draw_factors(settings.contrast, 1, 1)
    mean = pixels.mean(dim=(2, 3)).unsqueeze(2)
    offset = (1 - contrast) * (matrix @ mean)
    # baddbmm on flattened pixels applies all changes in one pass over memory.
    jittered = torch.baddbmm(offset, contrast * matrix, pixels.flatten(2))
    return jittered.clamp_(0, 255).view_as(pixels)

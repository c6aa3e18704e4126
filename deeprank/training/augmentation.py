"""What training does to images, a whole batch at once: geometry in one resampling, light and color in one matrix."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from deeprank.data.images import SHORT_SIDE
from deeprank.settings import Settings

# Rec. 601 luma weights: what saturation leaves alone.
LUMA = torch.tensor([0.299, 0.587, 0.114])


class AugmentSettings(Settings):
    """How strongly to augment; each range is drawn from uniformly.

    Attributes:
        crop_scale: share of the area of the square that search sees that a crop keeps at least (1: all of it).
        crop_ratio: aspect ratio of a crop lies within 1/crop_ratio .. crop_ratio.
        flip: probability of a left-right flip.
        rotation, shear: degrees; an image is turned and sheared by angles within -x .. x.
        brightness, contrast, saturation: factors lie within 1 - x .. 1 + x.
        channel_gain: each color channel's own factor lies within 1 - x .. 1 + x (shops differ in the color of their light).

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


def source_size(size: int) -> int:
    """Return the pixels an image is decoded to before a crop of it is taken: some more than the crop's, as stored at most."""
    return min(SHORT_SIDE, round(1.2 * size))


def random_affine_crop(images: Tensor, size: int, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Crop, stretch, flip, turn and shear each image of a batch in one resampling; beyond the edge it is mirrored.

    Args:
        images: float (n, 3, s, s).
        size: of the result.
        settings: how strongly.
        rng: the same generator state gives the same result.

    Returns:
        float (n, 3, size, size).

    """
    n = len(images)
    side = np.sqrt(rng.uniform(settings.crop_scale, 1, n))
    stretch = np.exp(rng.uniform(-1, 1, n) * np.log(settings.crop_ratio) / 2)
    across, down = np.minimum(side * stretch, 1), np.minimum(side / stretch, 1)
    left, top = rng.uniform(-1, 1, (2, n)) * (1 - np.stack([across, down]))
    flip = np.where(rng.random(n) < settings.flip, -1, 1)
    angle, shear = np.radians(rng.uniform(-1, 1, (2, n)) * [[settings.rotation], [settings.shear]])
    slope = np.tan(shear)
    # From places of the result to places of the image, both -1..1.
    rows = [
        [across * flip * np.cos(angle), across * (slope * np.cos(angle) - np.sin(angle)), left],
        [down * flip * np.sin(angle), down * (slope * np.sin(angle) + np.cos(angle)), top],
    ]
    matrix = torch.from_numpy(np.array(rows, dtype=np.float32)).permute(2, 0, 1).to(images.device)
    grid = affine_grid(matrix, [n, 3, size, size], align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def color_jitter(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, saturation and tint of each image of a batch by one 3 x 4 matrix each.

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
    matrix = factors(settings.channel_gain, 3, 1) * factors(settings.brightness, 1, 1) * matrix
    contrast = factors(settings.contrast, 1, 1)
    mean = pixels.mean(dim=(2, 3)).unsqueeze(2)
    offset = (1 - contrast) * (matrix @ mean)
    # baddbmm over flattened pixels applies all of it in one pass over memory.
    changed = torch.baddbmm(offset, contrast * matrix, pixels.flatten(2))
    return changed.clamp_(0, 255).view_as(pixels)

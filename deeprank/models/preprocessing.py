"""From a stored JPEG to the net's input: the one way, for training's validation, evaluation, index and service alike."""

import torch
from pydantic import Field
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as F

from deeprank.data.images import SHORT_SIDE
from deeprank.settings import Settings


class Preprocessing(Settings):
    """Short side resized to `size` (antialiased, bilinear), then the center size x size pixels."""

    size: int = Field(192, ge=32, le=SHORT_SIDE)

    def __call__(self, jpeg: bytes) -> Tensor:
        """Return uint8 (3, size, size)."""
        image = F.resize(decode(jpeg), [self.size], antialias=True)
        return F.center_crop(image, [self.size, self.size])


def decode(jpeg: bytes) -> Tensor:
    """Return a stored image as uint8 (3, height, width), RGB."""
    return decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), mode=ImageReadMode.RGB)

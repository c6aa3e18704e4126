"""From a stored JPEG to the input of the model: the only preprocessing, for validation, evaluation, index and service."""

import torch
from pydantic import Field
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as F

from deeprank.data.images import MAX_SHORT_SIDE
from deeprank.settings import Settings


class Preprocessing(Settings):
    """Resize the short side to `size` pixels (bilinear, antialiased) and crop the center square."""

    size: int = Field(192, ge=32, le=MAX_SHORT_SIDE)

    def __call__(self, jpeg: bytes) -> Tensor:
        """Return the pixels of a stored image, uint8 (3, size, size)."""
        image = F.resize(decode(jpeg), [self.size], antialias=True)
        return F.center_crop(image, [self.size, self.size])


def decode(jpeg: bytes) -> Tensor:
    """Return the pixels of a stored image, uint8 (3, height, width), RGB."""
    return decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), mode=ImageReadMode.RGB)

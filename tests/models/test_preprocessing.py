"""The preprocessing of stored images."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from deeprank.data.images import to_stored_image
from deeprank.models.preprocessing import Preprocessing, decode
from tests.drawing import decoded, encoded, pattern


@pytest.mark.parametrize("shape", [(64, 64), (256, 384), (300, 256), (40, 200), (17, 16)])
@pytest.mark.parametrize("size", [32, 64, 224])
def test_every_image_becomes_a_uint8_square(shape: tuple[int, int], size: int) -> None:
    pixels = Preprocessing(size=size)(encoded(pattern(1, shape), "JPEG"))
    assert (pixels.shape, pixels.dtype) == ((3, size, size), torch.uint8)


def test_the_center_is_cropped_without_distortion() -> None:
    wide = Image.new("RGB", (192, 64), (255, 0, 0))
    wide.paste((0, 255, 0), (64, 0, 128, 64))
    pixels = Preprocessing(size=64)(encoded(wide, "JPEG", quality=95)).float()
    assert torch.allclose(pixels[:, :, 4:60].mean((1, 2)), torch.tensor([0.0, 255, 0]), atol=4)


def test_an_image_of_the_right_size_is_unchanged() -> None:
    jpeg = encoded(pattern(2), "JPEG", quality=95)
    assert torch.equal(Preprocessing(size=64)(jpeg), decode(jpeg))


def test_downsampling_averages_all_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (256, 256), dtype=np.uint8) * 255
    small = Preprocessing(size=32)(encoded(Image.fromarray(noise).convert("RGB"), "JPEG", quality=95)).float()
    # The standard deviation of single pixels would be 127; that of averages over 8 x 8 pixels is 16.
    assert small.std() < 20


def test_decoding_gives_the_pixels_of_pillow() -> None:
    jpeg = to_stored_image(encoded(pattern(3, (120, 90)))).jpeg
    assert np.abs(decode(jpeg).permute(1, 2, 0).numpy() - decoded(jpeg)).max() <= 3


@pytest.mark.parametrize("wrong", [{"size": 31}, {"size": 257}, {"side": 64}])
def test_a_size_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing(**wrong)

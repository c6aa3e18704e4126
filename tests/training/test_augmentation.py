"""Augmentation follows its settings, and is the same for the same generator."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from deeprank.models.preprocessing import Preprocessing
from deeprank.training.augmentation import LUMA, AugmentSettings, color_jitter, decoded_size, random_affine_crop
from tests.drawing import encoded, pattern

NOTHING = {
    "crop_scale": 1,
    "crop_ratio": 1,
    "flip": 0,
    "rotation": 0,
    "shear": 0,
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "channel_gain": 0,
}
# Mid-tones, so that nothing is clipped.
IMAGES = torch.randint(90, 140, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def settings(**changed: float) -> AugmentSettings:
    return AugmentSettings(**NOTHING | changed)


def jittered(seed: int = 0, **changed: float) -> torch.Tensor:
    return color_jitter(IMAGES, settings(**changed), np.random.default_rng(seed))


def _ramp(n: int) -> torch.Tensor:
    """Return squares in which red increases to the right and green downwards, from 0 to 1."""
    across = ((torch.arange(256) + 0.5) / 256).expand(256, 256)
    return torch.stack([across, across.T, torch.zeros(256, 256)]).expand(n, 3, 256, 256).contiguous()


def test_without_augmentation_the_input_is_that_of_search() -> None:
    jpeg = encoded(pattern(1, (140, 100)), "JPEG")
    pixels = Preprocessing(size=48)(jpeg).float()[None]
    assert torch.allclose(random_affine_crop(pixels, 48, settings(), np.random.default_rng(0)), pixels, atol=1e-3)


def test_images_are_decoded_larger_than_the_crop() -> None:
    assert [decoded_size(size) for size in (100, 160, 224, 256)] == [120, 192, 256, 256]


def test_flip_probability_1_mirrors_every_image() -> None:
    plain, flipped = (random_affine_crop(IMAGES.float(), 16, settings(flip=flip), np.random.default_rng(0)) for flip in (0, 1))
    assert torch.allclose(flipped, plain.flip(3), atol=1e-3)


def test_the_flip_probability_is_respected() -> None:
    ramp = _ramp(1000)[:, :, ::32, ::32]
    flipped = random_affine_crop(ramp, 8, settings(flip=0.3), np.random.default_rng(1))
    assert float((flipped[:, 0, 0, 0] > 0.5).float().mean()) == pytest.approx(0.3, abs=0.05)


def test_crops_are_within_scale_and_ratio() -> None:
    crops = random_affine_crop(_ramp(300), 64, settings(crop_scale=0.3, crop_ratio=1.5), np.random.default_rng(0))
    # The distance from the center of the first pixel to the center of the last is 63/64 of the crop.
    width, height = ((crops[:, channel].amax((1, 2)) - crops[:, channel].amin((1, 2))) * 64 / 63 for channel in (0, 1))
    shares, ratios = width * height, width / height
    assert 0.29 < shares.min() < 0.35
    assert 0.9 < shares.max() <= 1.01
    assert 1 / 1.55 < ratios.min() < 0.75
    assert 1.35 < ratios.max() < 1.55
    assert crops[:, 0].amin((1, 2)).min() < 0.05
    assert crops[:, 0].amin((1, 2)).max() > 0.3


def test_the_same_generator_gives_the_same_augmentation() -> None:
    crops = [random_affine_crop(IMAGES.float(), 12, AugmentSettings(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    jitters = [color_jitter(IMAGES, AugmentSettings(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    for first, again, other in (crops, jitters):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def _angles(images: torch.Tensor) -> np.ndarray:
    """Return the angle, in degrees, of the bright spot of each image as seen from the center."""
    weight = images.sum(1)
    positions = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    across, down = (weight.sum(1) * positions).sum(1), (weight.sum(2) * positions).sum(1)
    return torch.atan2(down, across).rad2deg().numpy()


def test_rotation_angles_are_in_range_and_differ() -> None:
    spot = torch.zeros(64, 3, 65, 65)
    spot[:, :, 30:35, 50:55] = 255
    angles = _angles(random_affine_crop(spot, 65, settings(rotation=30), np.random.default_rng(0)))
    assert np.abs(angles).max() < 31
    assert angles.min() < -25
    assert angles.max() > 25
    assert len(set(angles.round(3))) == 64


def test_shear_moves_rows_horizontally() -> None:
    above, beside = torch.zeros(2, 32, 3, 65, 65)
    above[:, :, 10:15, 30:35] = 255
    beside[:, :, 30:35, 50:55] = 255
    angles = _angles(random_affine_crop(above, 65, settings(shear=20), np.random.default_rng(0)))
    assert np.abs(angles + 90).max() == pytest.approx(20, abs=2)
    assert np.abs(_angles(random_affine_crop(beside, 65, settings(shear=20), np.random.default_rng(0)))).max() < 1


def test_rotation_and_shear_leave_no_empty_corner() -> None:
    white = torch.full((8, 3, 32, 32), 255.0)
    assert torch.allclose(
        random_affine_crop(white, 24, settings(rotation=180, shear=40), np.random.default_rng(0)), torch.tensor(255.0), atol=1e-2
    )


def test_ranges_of_0_change_nothing() -> None:
    result = jittered()
    assert (result.dtype, result.shape) == (torch.float32, IMAGES.shape)
    assert torch.allclose(result, IMAGES.float(), atol=1e-3)


def test_brightness_is_one_factor_per_image() -> None:
    factors = (jittered(brightness=0.3) / IMAGES).flatten(1)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), atol=1e-4)
    assert ((factors > 0.7) & (factors < 1.3)).all()
    assert len(factors[:, 0].unique()) == len(IMAGES)


def test_channel_gain_is_one_factor_per_channel() -> None:
    factors = (jittered(channel_gain=0.1) / IMAGES).flatten(2)
    assert torch.allclose(factors, factors[:, :, :1].expand_as(factors), atol=1e-4)
    assert ((factors > 0.9) & (factors < 1.1)).all()
    assert len(factors[:, :, 0].unique()) == 3 * len(IMAGES)


def test_contrast_keeps_the_mean_of_each_channel() -> None:
    result, original = jittered(contrast=0.3), IMAGES.float()
    assert torch.allclose(result.mean((2, 3)), original.mean((2, 3)), atol=1e-2)
    factors = result.std((1, 2, 3)) / original.std((1, 2, 3))
    assert ((factors > 0.7) & (factors < 1.3)).all()
    assert not torch.allclose(factors, torch.ones(len(IMAGES)), atol=0.02)


def test_saturation_keeps_luma_and_gray() -> None:
    result, original = jittered(saturation=0.5), IMAGES.float()
    luma = LUMA.view(1, 3, 1, 1)
    assert torch.allclose((result * luma).sum(1), (original * luma).sum(1), atol=1e-2)
    assert not torch.allclose(result, original, atol=1)
    gray = IMAGES[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(color_jitter(gray, settings(saturation=0.5), np.random.default_rng(0)), gray.float(), atol=1e-2)


def test_jittered_pixels_stay_in_0_to_255() -> None:
    extremes = torch.randint(0, 2, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)) * 255
    strong = AugmentSettings(brightness=0.9, contrast=0.9, saturation=0.9, channel_gain=0.9)
    for seed in range(10):
        result = color_jitter(extremes, strong, np.random.default_rng(seed))
        assert result.min() >= 0
        assert result.max() <= 255


@pytest.mark.parametrize("wrong", [{"crop_scale": 0}, {"crop_ratio": 0.9}, {"flip": 1.1}, {"brightness": 1}, {"zoom": 1}])
def test_invalid_ranges_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        AugmentSettings(**wrong)

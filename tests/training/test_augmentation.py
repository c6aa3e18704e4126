"""Augmentation does what its settings say, within their ranges, and the same for the same generator."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from deeprank.model.preprocessing import Preprocessing
from deeprank.training.augmentation import LUMA, AugmentSettings, change_light, crop_and_flip, turn
from tests.drawing import encoded, pattern

NOTHING = {"smallest_crop": 1, "stretch": 1, "flip": 0, "turn": 0, "brightness": 0, "contrast": 0, "saturation": 0, "tint": 0}
# Mid-tones, so that nothing is clipped.
IMAGES = torch.randint(90, 140, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def settings(**changed: float) -> AugmentSettings:
    return AugmentSettings(**NOTHING | changed)


def light(seed: int = 0, **changed: float) -> torch.Tensor:
    return change_light(IMAGES, settings(**changed), np.random.default_rng(seed))


def _ramp() -> bytes:
    """A square whose red grows to the right and whose green grows downwards."""
    across = np.tile(np.linspace(0, 255, 256), (256, 1))
    return encoded(Image.fromarray(np.stack([across, across.T, np.zeros_like(across)], axis=2).astype(np.uint8)), "JPEG", quality=95)


def test_without_augmentation_a_square_photograph_is_what_search_sees() -> None:
    jpeg = encoded(pattern(1, (100, 100)), "JPEG")
    assert torch.equal(crop_and_flip(jpeg, 48, settings(), np.random.default_rng(0)), Preprocessing(size=48)(jpeg))


def test_a_sure_flip_mirrors() -> None:
    jpeg = encoded(pattern(1, (100, 100)), "JPEG")
    plain, flipped = (crop_and_flip(jpeg, 48, settings(flip=flip), np.random.default_rng(0)) for flip in (0, 1))
    assert torch.equal(flipped, plain.flip(2))


def test_flips_come_as_often_as_asked() -> None:
    jpeg = encoded(pattern(1, (32, 32)), "JPEG")
    plain = crop_and_flip(jpeg, 32, settings(), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    flips = [not torch.equal(crop_and_flip(jpeg, 32, settings(flip=0.3), rng), plain) for _ in range(400)]
    assert np.mean(flips) == pytest.approx(0.3, abs=0.07)


def test_crops_keep_the_share_and_the_shape_that_was_asked_for() -> None:
    jpeg, rng = _ramp(), np.random.default_rng(0)
    shares, ratios, lefts = [], [], []
    for _ in range(150):
        crop = crop_and_flip(jpeg, 64, settings(smallest_crop=0.3, stretch=1.5), rng).float()
        # From the middle of the first to the middle of the last of 64 pixels.
        width, height = ((crop[channel].max() - crop[channel].min()) / 255 * 64 / 63 for channel in (0, 1))
        shares.append(float(width * height))
        ratios.append(float(width / height))
        lefts.append(float(crop[0].min()))
    assert 0.27 < min(shares) < 0.4
    assert 0.8 < max(shares) <= 1.03
    assert 1 / 1.6 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.6
    assert min(lefts) < 10
    assert max(lefts) > 50


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (256, 256), (40, 17)])
@pytest.mark.parametrize("size", [32, 96])
def test_any_photograph_becomes_a_square_of_bytes(shape: tuple[int, int], size: int) -> None:
    jpeg = encoded(pattern(2, shape), "JPEG")
    for seed in range(5):
        crop = crop_and_flip(jpeg, size, AugmentSettings(smallest_crop=0.01, stretch=4), np.random.default_rng(seed))
        assert (crop.shape, crop.dtype) == ((3, size, size), torch.uint8)


def test_the_same_generator_gives_the_same_crop_and_light() -> None:
    jpeg = encoded(pattern(1, (100, 100)), "JPEG")
    crops = [crop_and_flip(jpeg, 48, AugmentSettings(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    lights = [change_light(IMAGES, AugmentSettings(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    for first, again, other in (crops, lights):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def _angles(images: torch.Tensor) -> np.ndarray:
    """Return the direction, in degrees, in which the bright spot of each photograph lies from the middle."""
    weight = images.sum(1)
    places = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    across, down = (weight.sum(1) * places).sum(1), (weight.sum(2) * places).sum(1)
    return torch.atan2(down, across).rad2deg().numpy()


def test_photographs_are_turned_about_their_middle_each_by_its_own_angle_in_range() -> None:
    spot = torch.zeros(64, 3, 65, 65)
    spot[:, :, 30:35, 50:55] = 255
    angles = _angles(turn(spot, settings(turn=30), np.random.default_rng(0)))
    assert np.abs(angles).max() < 31
    assert angles.min() < -25
    assert angles.max() > 25
    assert len(set(angles.round(3))) == 64


def test_a_turn_leaves_no_empty_corner_and_no_turn_changes_nothing() -> None:
    white = torch.full((8, 3, 32, 32), 255.0)
    assert torch.allclose(turn(white, settings(turn=180), np.random.default_rng(0)), white, atol=1e-2)
    assert torch.equal(turn(IMAGES.float(), settings(), np.random.default_rng(0)), IMAGES.float())


def test_no_spread_changes_nothing() -> None:
    found = light()
    assert (found.dtype, found.shape) == (torch.float32, IMAGES.shape)
    assert torch.allclose(found, IMAGES.float(), atol=1e-3)


def test_brightness_multiplies_each_photograph_by_one_factor_in_range() -> None:
    factors = (light(brightness=0.3) / IMAGES).flatten(1)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), atol=1e-4)
    assert ((factors > 0.7) & (factors < 1.3)).all()
    assert len(factors[:, 0].unique()) == len(IMAGES)


def test_tint_multiplies_each_channel_by_a_factor_of_its_own() -> None:
    factors = (light(tint=0.1) / IMAGES).flatten(2)
    assert torch.allclose(factors, factors[:, :, :1].expand_as(factors), atol=1e-4)
    assert ((factors > 0.9) & (factors < 1.1)).all()
    assert len(factors[:, :, 0].unique()) == 3 * len(IMAGES)


def test_contrast_stretches_around_the_mean_of_each_channel() -> None:
    found, original = light(contrast=0.3), IMAGES.float()
    assert torch.allclose(found.mean((2, 3)), original.mean((2, 3)), atol=1e-2)
    factors = found.std((1, 2, 3)) / original.std((1, 2, 3))
    assert ((factors > 0.7) & (factors < 1.3)).all()
    assert not torch.allclose(factors, torch.ones(len(IMAGES)), atol=0.02)


def test_saturation_leaves_brightness_and_grey_alone() -> None:
    found, original = light(saturation=0.5), IMAGES.float()
    luma = LUMA.view(1, 3, 1, 1)
    assert torch.allclose((found * luma).sum(1), (original * luma).sum(1), atol=1e-2)
    assert not torch.allclose(found, original, atol=1)
    grey = IMAGES[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(change_light(grey, settings(saturation=0.5), np.random.default_rng(0)), grey.float(), atol=1e-2)


def test_pixels_stay_pixels() -> None:
    extremes = torch.randint(0, 2, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)) * 255
    strong = AugmentSettings(brightness=0.9, contrast=0.9, saturation=0.9, tint=0.9)
    for seed in range(10):
        found = change_light(extremes, strong, np.random.default_rng(seed))
        assert found.min() >= 0
        assert found.max() <= 255


@pytest.mark.parametrize("wrong", [{"smallest_crop": 0}, {"stretch": 0.9}, {"flip": 1.1}, {"brightness": 1}, {"zoom": 1}])
def test_ranges_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        AugmentSettings(**wrong)

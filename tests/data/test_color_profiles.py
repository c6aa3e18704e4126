"""The colors of an embedded ICC profile are those that a viewer shows; a profile that cannot be used changes nothing."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks.color_profile import ADOBE_RGB, DISPLAY_P3, Space, icc_profile
from deeprank.data.copies import MIN_COPY_SIMILARITY, copy_similarity, image_details
from deeprank.data.images import UNUSABLE_PROFILE, to_stored_image
from deeprank.data.synthetic import draw_image
from tests.drawing import decoded, encoded, pattern

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _in_space(image: Image.Image, space: Space) -> Image.Image:
    """Return the pixels of an sRGB image in another color space."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile(space)))
    result = ImageCms.ImageCmsTransform(SRGB, target, "RGB", "RGB").apply(image)
    result.info.clear()
    return result


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("space", [ADOBE_RGB, DISPLAY_P3], ids=["Adobe RGB", "Display P3"])
def test_the_colors_of_a_profile_become_srgb(kind: str, space: Space) -> None:
    # Colors that both spaces can show.
    image = pattern(6, (256, 256)).point(lambda value: 60 + value // 2)
    plain = to_stored_image(encoded(image, kind))
    converted = to_stored_image(encoded(_in_space(image, space), kind, icc_profile=icc_profile(space)))
    lost = to_stored_image(encoded(_in_space(image, space), kind))
    error, error_without_profile = (np.abs(decoded(plain.jpeg) - decoded(other.jpeg)).mean() for other in (converted, lost))
    assert error < error_without_profile / 2
    assert converted.conversion == ""
    with Image.open(io.BytesIO(converted.jpeg)) as stored:
        assert "icc_profile" not in stored.info


def test_the_profile_of_adobe_rgb_gives_its_known_colors() -> None:
    # Source: Adobe RGB (1998) green and gray are sRGB (0, 255, 0), out of gamut, and (129, 129, 129).
    for color, expected in (((0, 255, 0), (0, 255, 0)), ((128, 128, 128), (129, 129, 129)), ((200, 60, 60), (232, 57, 57))):
        result = to_stored_image(encoded(Image.new("RGB", (64, 64), color), icc_profile=icc_profile(ADOBE_RGB)))
        assert np.allclose(decoded(result.jpeg).mean((0, 1)), expected, atol=3)


def test_a_copy_with_a_profile_is_a_copy() -> None:
    image = draw_image(3, 0)
    files = encoded(image, "JPEG", quality=90), encoded(_in_space(image, DISPLAY_P3), "JPEG", icc_profile=icc_profile(DISPLAY_P3))
    details = [image_details(to_stored_image(file).jpeg) for file in files]
    assert copy_similarity(*details) >= MIN_COPY_SIMILARITY


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_a_profile_of_rgb_fits_every_mode_but_cmyk(mode: str) -> None:
    image = pattern(6).convert(mode)
    plain, with_profile = to_stored_image(encoded(image)), to_stored_image(encoded(image, icc_profile=SRGB.tobytes()))
    assert with_profile.conversion == plain.conversion
    assert np.abs(decoded(plain.jpeg) - decoded(with_profile.jpeg)).max() <= 3


@pytest.mark.parametrize("profile", [b"no profile", icc_profile(ADOBE_RGB)[:200]], ids=["no profile", "truncated"])
def test_a_damaged_profile_is_ignored_with_a_message(profile: bytes) -> None:
    plain, damaged = to_stored_image(encoded(pattern(6), "JPEG")), to_stored_image(encoded(pattern(6), "JPEG", icc_profile=profile))
    assert damaged.conversion == UNUSABLE_PROFILE
    assert (damaged.jpeg, damaged.phash) == (plain.jpeg, plain.phash)


def test_a_profile_of_another_color_space_is_ignored() -> None:
    image = pattern(6).convert("CMYK")
    result = to_stored_image(encoded(image, "JPEG", icc_profile=icc_profile(ADOBE_RGB)))
    assert result.conversion == f"converted from CMYK to RGB; {UNUSABLE_PROFILE}"
    assert result.jpeg == to_stored_image(encoded(image, "JPEG")).jpeg

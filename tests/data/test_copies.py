"""Copies are confirmed by place, color and detail; different things of one layout are not copies."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from benchmarks.same_layout import SETS, draw_same_layout
from deeprank.data.copies import MIN_COPY_SIMILARITY, confirm_copies, copy_similarity, image_details
from deeprank.data.images import to_stored_jpeg
from deeprank.data.synthetic import draw_image
from tests.drawing import encoded


def _similarity(first: Image.Image, second: Image.Image, quality: int = 90) -> float:
    details = [image_details(to_stored_jpeg(encoded(image, "JPEG", quality=quality))) for image in (first, second)]
    return copy_similarity(*details)


def _crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.06 * width), round(0.03 * height), round(0.97 * width), round(0.91 * height)))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "larger": lambda image: image.resize((image.width * 3 // 2, image.height * 3 // 2), Image.Resampling.BICUBIC),
    "cropped": _crop,
    "darker": lambda image: image.point(lambda value: value * 0.8),
    "brighter": lambda image: image.point(lambda value: min(255, value * 1.2)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("product", [0, 3, 11])
def test_a_changed_image_is_a_copy(change: str, product: int) -> None:
    image = draw_image(product, 0)
    assert _similarity(image, CHANGES[change](image), quality=75) >= MIN_COPY_SIMILARITY


@pytest.mark.parametrize("product", [0, 3, 11])
def test_another_image_of_the_same_product_is_not_a_copy(product: int) -> None:
    assert max(_similarity(draw_image(product, 0), draw_image(product, other)) for other in (1, 2, 3)) < MIN_COPY_SIMILARITY


@pytest.mark.parametrize("name", SETS)
def test_things_of_one_layout_are_not_copies(name: str) -> None:
    images = [draw_same_layout(name, sort, 0) for sort in range(4)]
    assert max(_similarity(first, second) for first, second in combinations(images, 2)) < MIN_COPY_SIMILARITY


def test_coins_that_differ_in_a_digit_are_not_copies() -> None:
    assert _similarity(draw_same_layout("coin", 0, 1), draw_same_layout("coin", 1, 2)) < MIN_COPY_SIMILARITY


@pytest.mark.parametrize("name", sorted(SETS.keys() - {"swatch"}))
def test_a_copy_of_a_thing_on_white_is_a_copy(name: str) -> None:
    image = draw_same_layout(name, 0, 0)
    assert _similarity(image, _crop(image)) >= MIN_COPY_SIMILARITY


def test_flat_images_are_copies_only_if_they_are_equal() -> None:
    red, green, other_red = (Image.new("RGB", (120, 90), color) for color in ("#c81e1e", "#1eb428", "#c02626"))
    assert _similarity(red, red) == 1
    assert _similarity(red, red.resize((240, 180))) == 1
    assert _similarity(red, green) == _similarity(red, other_red) == 0


def test_all_pairs_are_compared_in_their_order() -> None:
    images = [draw_image(0, 0), draw_image(1, 0), _crop(draw_image(0, 0))]
    jpegs = [to_stored_jpeg(encoded(image, "JPEG", quality=90)) for image in images]
    pairs = np.array([[2, 0], [0, 1], [0, 2], [1, 1]])
    similarity = confirm_copies(pairs, lambda numbers: [jpegs[number] for number in numbers])
    assert (similarity >= MIN_COPY_SIMILARITY).tolist() == [True, False, True, True]
    assert similarity.tolist() == [copy_similarity(*(image_details(jpegs[number]) for number in pair)) for pair in pairs]
    assert confirm_copies(np.empty((0, 2), dtype=np.int64), lambda _: []).shape == (0,)

"""Copies are confirmed by place, color and detail; different things of one layout are not copies."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

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


def _bottle(word: str, color: str) -> Image.Image:
    """The same bottle on white, with another label."""
    image = Image.new("RGB", (300, 400), "white")
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((100, 90, 200, 380), 20, fill="#d8e4e0", outline="black", width=3)
    draw.rectangle((125, 30, 175, 92), fill="#403830")
    draw.rectangle((103, 180, 197, 310), fill=color)
    draw.text((120, 230), word, fill="white", font_size=26)
    for line in range(6):
        draw.line((110, 260 + 7 * line, 190, 260 + 7 * line), fill="white", width=2)
    return image


def test_things_of_one_layout_are_not_copies() -> None:
    chili, herb, mint = _bottle("CHILI", "#b42020"), _bottle("HERB", "#208c28"), _bottle("MINT", "#2832b4")
    assert max(_similarity(chili, herb), _similarity(chili, mint), _similarity(herb, mint)) < MIN_COPY_SIMILARITY
    assert _similarity(chili, _crop(chili)) >= MIN_COPY_SIMILARITY


def test_flat_images_are_copies_only_if_they_are_equal() -> None:
    red, green, other_red = (Image.new("RGB", (120, 90), color) for color in ("#c81e1e", "#1eb428", "#c02626"))
    assert _similarity(red, red) == 1
    assert _similarity(red, green) == _similarity(red, other_red) == 0


def test_all_pairs_are_compared_in_their_order() -> None:
    images = [draw_image(0, 0), draw_image(1, 0), _crop(draw_image(0, 0))]
    jpegs = [to_stored_jpeg(encoded(image, "JPEG", quality=90)) for image in images]
    pairs = np.array([[2, 0], [0, 1], [0, 2], [1, 1]])
    similarity = confirm_copies(pairs, lambda numbers: [jpegs[number] for number in numbers])
    assert (similarity >= MIN_COPY_SIMILARITY).tolist() == [True, False, True, True]
    assert similarity.tolist() == [copy_similarity(*(image_details(jpegs[number]) for number in pair)) for pair in pairs]
    assert confirm_copies(np.empty((0, 2), dtype=np.int64), lambda _: []).shape == (0,)

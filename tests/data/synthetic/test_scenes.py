"""Synthetic images have the documented size, and the images of one class vary widely."""

import numpy as np
import pytest

from deeprank.data.synthetic import draw_image

SIZE = 64


@pytest.mark.parametrize("size", [32, 64, 200])
def test_the_shorter_side_is_the_size_and_the_shape_varies(size: int) -> None:
    images = [draw_image(c, i, size=size) for c in (0, 5, 10, 30, 39) for i in range(4)]
    assert {image.mode for image in images} == {"RGB"}
    assert {min(image.size) for image in images} == {size}
    assert max(max(image.size) for image in images) <= round(1.5 * size)
    shapes = {(image.width > image.height) - (image.width < image.height) for image in images}
    assert {-1, 1} <= shapes


def test_images_of_one_class_differ_widely() -> None:
    thumbnails = np.stack([np.asarray(draw_image(9, i, size=SIZE).resize((16, 16)), np.float32) for i in range(12)])
    distance = np.abs(thumbnails[:, None] - thumbnails[None]).mean((2, 3, 4))
    assert distance[np.triu_indices(12, 1)].min() > 8


def test_large_class_indices_can_be_drawn() -> None:
    assert draw_image(123_456, 0, size=SIZE).mode == "RGB"

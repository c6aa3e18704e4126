"""Overlays of similarity maps, and the figures that show them."""

import io

import numpy as np
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.data.images import to_stored_image
from deeprank.plotting.explanation import OVERLAY_PX, ExplainedPair, explained_pairs, explanation_figure, overlay, overlay_png
from deeprank.plotting.style import CORRECT_COLOR, NEUTRAL_COLOR, WRONG_COLOR, short_label
from tests.drawing import encoded, pattern
from tests.plotting.reading import tiles


@pytest.fixture(scope="module")
def jpegs() -> tuple[bytes, bytes]:
    first, second = (to_stored_image(encoded(pattern(seed, size))).jpeg for seed, size in ((1, (160, 130)), (2, (128, 190))))
    return first, second


def _saturation(pixels: np.ndarray) -> np.ndarray:
    return pixels.max(axis=2) - pixels.min(axis=2)


def test_a_region_that_adds_similarity_is_bright_others_gray() -> None:
    jpeg = to_stored_image(encoded(pattern(3, (200, 128)))).jpeg
    contributions = np.full((4, 4), -0.1, dtype=np.float32)
    contributions[1, 2] = 0.5
    pixels = np.asarray(overlay(jpeg, contributions), dtype=float)
    assert pixels.shape == (OVERLAY_PX, OVERLAY_PX, 3)
    saturation = _saturation(pixels)
    cell = OVERLAY_PX // 4
    assert saturation[cell : 2 * cell, 2 * cell : 3 * cell].mean() > 60
    assert saturation[:, :cell].max() <= 1
    assert saturation[2 * cell + cell // 2 + 8 :].max() <= 1
    # Gray regions show the dimmed center square of the image.
    center = Image.open(io.BytesIO(jpeg)).convert("L").crop((36, 0, 164, 128)).resize((OVERLAY_PX, OVERLAY_PX), Image.Resampling.BICUBIC)
    assert np.abs(pixels[:, :cell].mean(axis=2) - 0.6 * np.asarray(center, dtype=float)[:, :cell]).mean() < 2
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(overlay_png(jpeg, contributions)))), pixels)


def test_the_color_scale_is_the_same_for_all_pairs() -> None:
    jpeg = to_stored_image(encoded(pattern(3, (128, 128)))).jpeg
    weak, strong = (np.asarray(overlay(jpeg, np.full((4, 4), share / 16, dtype=np.float32)), dtype=float) for share in (0.1, 0.9))
    assert _saturation(strong).mean() > 3 * _saturation(weak).mean()


def test_two_images_are_drawn_with_their_maps(jpegs: tuple[bytes, bytes]) -> None:
    first_map, second_map = np.full((2, 4, 4), 0.875 / 16, dtype=np.float32)
    figure = explanation_figure(jpegs, (first_map, second_map), 0.5, ("a$b.jpg", "x" * 60 + "c.jpg"))
    assert figure.get_suptitle().startswith("Distance 0.50")
    assert [axes.get_title() for axes in figure.axes] == [r"a\$b.jpg", "x" * 35 + "c.jpg", "", ""]
    for axes, jpeg in zip(figure.axes[2:], jpegs, strict=True):
        assert np.array_equal(axes.images[0].get_array(), np.asarray(overlay(jpeg, first_map)))
    figure.savefig(io.BytesIO())


def _pair(query: int, neighbor: int) -> ExplainedPair:
    query_map, neighbor_map = np.random.default_rng(query).normal(size=(2, 4, 4)).astype(np.float32)
    return ExplainedPair(query, neighbor, 0.25, query_map, neighbor_map)


def test_pairs_are_drawn_with_captions_and_maps(catalogue: Catalogue) -> None:
    correct, wrong = _pair(0, 1), _pair(2, 3)
    figure = explained_pairs(catalogue, [correct], [wrong], num_correct=1200, num_wrong=1)
    labels = catalogue.frame["label"]
    for half, pair, color in zip(figure.subfigs, (correct, wrong), (CORRECT_COLOR, WRONG_COLOR), strict=True):
        assert tiles(half) == [
            (f"query\n{short_label(labels[pair.query])}", NEUTRAL_COLOR),
            ("", NEUTRAL_COLOR),
            ("", color),
            (f"0.25\n{short_label(labels[pair.neighbor])}", color),
        ]
        jpegs, maps = catalogue.read_jpegs([pair.query, pair.neighbor]), (pair.query_map, pair.neighbor_map)
        for axes, jpeg, contributions in zip(half.axes[1:3], jpegs, maps, strict=True):
            assert np.array_equal(axes.images[0].get_array(), np.asarray(overlay(jpeg, contributions)))
    titles = ["1 of 1,200 correct first neighbors, shortest distance first", "1 of 1 wrong first neighbors, shortest distance first"]
    assert [half.get_suptitle() for half in figure.subfigs] == titles


def test_a_kind_without_pairs_is_drawn_as_none(catalogue: Catalogue) -> None:
    for correct in ([_pair(0, 1)], []):
        figure = explained_pairs(catalogue, correct, [], len(correct), 0)
        assert sum(bool(axes.images) for axes in figure.axes) == 4 * len(correct)
        assert "none" in [text.get_text() for text in figure.subfigs[1].texts]
        figure.savefig(io.BytesIO())

"""Pairs of copies across splits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.plotting.leakage import leak_pairs
from deeprank.plotting.style import NEUTRAL_COLOR, WRONG_COLOR
from tests.drawing import put_all
from tests.plotting.reading import tiles

LONG_PATH = "train/x/a-very-long-file-name.png"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """A catalogue whose file test/x/same.png has the bytes of train/x/1.png, and therefore no row of its own."""
    folder: Path = tmp_path_factory.mktemp("planted")
    put_all(folder, {"train/x/1.png": 1, LONG_PATH: 2, "train/y/3.png": 3, "test/x/same.png": 1, "test/x/copy.png": 4})
    return ingest(folder, IngestSettings(), str(tmp_path_factory.mktemp("catalogues")), progress=False)[0]


@pytest.fixture(scope="module")
def leaks() -> pd.DataFrame:
    paths = {"path": ["test/x/same.png", "test/x/copy.png"], "other_path": ["train/x/1.png", LONG_PATH]}
    return pd.DataFrame(paths | {"split": "test", "other_split": "train", "similarity": [1.0, 0.95]})


def test_both_images_of_a_pair_are_drawn(planted: Catalogue, leaks: pd.DataFrame) -> None:
    figure = leak_pairs(planted, leaks)
    assert tiles(figure) == [
        ("test 1.000\ntest/x/same.png", WRONG_COLOR),
        ("train 1.000\ntrain/x/1.png", NEUTRAL_COLOR),
        ("test 0.950\ntest/x/copy.png", WRONG_COLOR),
        (f"train 0.950\n…{LONG_PATH[-25:]}", NEUTRAL_COLOR),
    ]
    first, second, third = (axes.images[0].get_array() for axes in figure.axes[:3])
    assert np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_the_most_similar_pairs_are_drawn(planted: Catalogue, leaks: pd.DataFrame) -> None:
    assert [caption.split("\n")[1] for caption, _ in tiles(leak_pairs(planted, leaks, count=1))] == ["test/x/same.png", "train/x/1.png"]
    assert not leak_pairs(planted, leaks.head(0)).axes

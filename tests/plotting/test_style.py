"""Primitives of figures, and the registry of captions."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.plotting import style
from deeprank.plotting.images import image_grid
from tests.drawing import put_all


def test_a_tile_is_the_center_square_of_its_image(catalogue: Catalogue) -> None:
    figure = style.draw_image_rows(catalogue, [[(4, "one", style.NEUTRAL_COLOR)]], "a tile")
    with Image.open(io.BytesIO(catalogue.read_jpegs([4])[0])) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        center = image.crop((left, top, left + side, top + side)).resize((style.TILE_PX, style.TILE_PX))
    assert np.array_equal(figure.axes[0].images[0].get_array(), np.asarray(center))


@pytest.mark.parametrize("label", ["a$^$", "$_$", "5$_{$"])
def test_a_dollar_sign_in_a_label_is_drawn(tmp_path: Path, label: str) -> None:
    folder = put_all(tmp_path / "f", {f"{label}/1.png": 1, f"{label}/2.png": 2, "y/3.png": 3})
    catalogue, _ = ingest(folder, IngestSettings(), str(tmp_path / "c"), progress=False)
    image_grid(catalogue).savefig(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_a_figure_is_registered_with_its_caption() -> None:
    assert style.CAPTIONS["images"] == "A random sample of the catalogue's images with their classes."
    with pytest.raises(ValueError, match="two figures have the name 'images'"):
        style.register_figure("images", "Another caption.")

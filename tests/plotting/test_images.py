"""Grids of images and of triplets."""

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.images import image_grid, triplet_grid
from deeprank.plotting.style import CORRECT_COLOR, WRONG_COLOR
from deeprank.triplets.sampling import Triplets
from tests.plotting.reading import last_folder, tile_rows


def test_a_grid_shows_images_with_their_classes(catalogue: Catalogue) -> None:
    rows = tile_rows(image_grid(catalogue, count=10))
    assert [len(row) for row in rows] == [8, 2]
    assert {caption for row in rows for caption, _ in row} <= {last_folder(label) for label in catalogue.frame["label"]}
    assert sum(len(row) for row in tile_rows(image_grid(catalogue, count=1000))) == len(catalogue.frame)


def test_a_triplet_is_query_positive_and_negative(catalogue: Catalogue, triplets: Triplets) -> None:
    sample = triplets.in_split("train").head(3)
    rows = tile_rows(triplet_grid(catalogue, sample))
    assert [len(row) for row in rows] == [6, 3]
    labels = catalogue.frame["label"]
    expected = {
        (last_folder(labels[t.query]), last_folder(labels[t.positive]), last_folder(labels[t.negative])) for t in sample.itertuples()
    }
    drawn = [row[start : start + 3] for row in rows for start in range(0, len(row), 3)]
    assert {tuple(caption.split("\n")[1] for caption, _ in triplet) for triplet in drawn} == expected
    for (query, _), (positive, positive_color), (negative, negative_color) in drawn:
        assert (query.split("\n")[0], positive[:8], negative[:8]) == ("query", "positive", "negative")
        assert (positive_color, negative_color) == (CORRECT_COLOR, WRONG_COLOR)

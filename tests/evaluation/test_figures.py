"""Pictures show what they say: the right photographs, marked right or wrong."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation import figures
from deeprank.evaluation.figures import RIGHT, WRONG
from deeprank.triplets.sampling import Triplets


def _shown(figure: Figure) -> list[list[tuple[str, str]]]:
    """Return the lines of a grid: caption and colour of each photograph in it."""
    lines: dict[int, list[tuple[str, str]]] = {}
    for axes in figure.axes:
        if axes.images:
            place = axes.get_subplotspec().rowspan.start
            lines.setdefault(place, []).append((axes.get_title(), to_hex(axes.spines["top"].get_edgecolor())))
    return [lines[place] for place in sorted(lines)]


def _short(label: str) -> str:
    return label.rsplit("/", 1)[-1]


def test_a_triplet_is_a_line_of_query_positive_and_negative(catalogue: Catalogue, triplets: Triplets) -> None:
    drawn = triplets.of("train").head(3)
    lines = _shown(figures.triplet_grid(catalogue, drawn))
    assert [len(line) for line in lines] == [6, 3]
    labels = catalogue.frame["label"]
    expected = {(_short(labels[t.query]), _short(labels[t.positive]), _short(labels[t.negative])) for t in drawn.itertuples()}
    cells = [line[start : start + 3] for line in lines for start in range(0, len(line), 3)]
    assert {tuple(caption.split("\n")[1] for caption, _ in three) for three in cells} == expected
    for (query, _), (positive, right), (negative, wrong) in cells:
        assert (query.split("\n")[0], positive[:8], negative[:8]) == ("query", "positive", "negative")
        assert (right, wrong) == (RIGHT, WRONG)


def test_neighbours_are_the_nearest_and_marked_by_their_class(catalogue: Catalogue, embeddings: np.ndarray) -> None:
    labels, gallery = catalogue.frame["label"].to_numpy(), catalogue.rows("train")
    rows = catalogue.rows("test")
    nearest = {row: gallery[np.argsort(np.linalg.norm(embeddings[gallery] - embeddings[row], axis=1), kind="stable")] for row in rows}
    hit = [float(labels[nearest[row][0]] == labels[row]) for row in rows]
    queries = pd.DataFrame({"row": rows, "fine.recall_at_1": hit, "fine.map_at_r": np.linspace(0, 1, len(rows))})
    lines = _shown(figures.neighbour_gallery(catalogue, embeddings, queries, gallery, count=3))
    assert len(lines) == min(3, int(sum(hit))) + 3
    for line in lines:
        assert len(line) == 7
        asked = line[0][0].split("\n")[1]
        distances = [float(caption.split("\n")[0]) for caption, _ in line[1:]]
        assert distances == sorted(distances)
        for caption, colour in line[1:]:
            assert colour == (RIGHT if caption.split("\n")[1] == asked else WRONG)
    firsts = [line[1][1] for line in lines]
    assert firsts == sorted(firsts, key=[RIGHT, WRONG].index)
    worst = queries[queries["fine.recall_at_1"] == 0].head(3)["row"]
    assert [line[0][0].split("\n")[1] for line in lines[-3:]] == [_short(labels[row]) for row in worst]


def test_a_sheet_shows_photographs_with_their_classes(catalogue: Catalogue) -> None:
    lines = _shown(figures.photograph_sheet(catalogue, count=10))
    assert [len(line) for line in lines] == [8, 2]
    assert {caption for line in lines for caption, _ in line} <= {_short(label) for label in catalogue.frame["label"]}
    assert sum(len(line) for line in _shown(figures.photograph_sheet(catalogue, count=1000))) == len(catalogue.frame)


def test_a_montage_has_a_line_a_cluster(catalogue: Catalogue) -> None:
    figure = figures.cluster_montage(catalogue, [np.array([3, 1, 2]), np.arange(20), np.array([5])], ["one", "two", "three"])
    lines = _shown(figure)
    assert [len(line) for line in lines] == [3, 8, 1]
    assert [line[0][0].split("\n")[0] for line in lines] == ["one", "two", "three"]
    assert lines[0][1][0].strip() == _short(catalogue.frame["label"][1])


def test_a_tile_is_the_middle_of_its_photograph(catalogue: Catalogue) -> None:
    figure = figures.cluster_montage(catalogue, [np.array([4])], ["one"])
    with Image.open(io.BytesIO(catalogue.photographs([4])[0])) as photograph:
        side = min(photograph.size)
        left, top = (photograph.width - side) // 2, (photograph.height - side) // 2
        middle = photograph.crop((left, top, left + side, top + side)).resize((figures.TILE, figures.TILE))
    assert np.array_equal(figure.axes[0].images[0].get_array(), np.asarray(middle))


def test_bars_are_the_recall_of_each_class_worst_on_top() -> None:
    table = pd.DataFrame({"label": ["a/worst", "a/best"], "fine.recall_at_1": [0.25, 1.0], "queries": [4, 7]})
    axes = figures.per_class_bars(table).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.25]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["best (7)", "worst (4)"]


@pytest.mark.parametrize("count", [3, 20])
def test_a_map_has_a_point_a_photograph_coloured_by_its_top_folder(count: int) -> None:
    points = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    labels = [f"{'ab'[i % 2]}/{i % 3}" for i in range(count)]
    axes = figures.embedding_map(points, labels).axes[0]
    assert sum(len(part.get_offsets()) for part in axes.collections) == count
    assert [part.get_label() for part in axes.collections] == ["a", "b"]
    assert {text.get_text() for text in axes.texts} == {label.split("/")[1] for label in labels}


def test_curves_have_a_panel_a_metric() -> None:
    points = pd.DataFrame({"name": ["loss", "recall", "loss"], "value": [2.0, 0.5, 1.0], "step": [1, 1, 2]})
    panels = figures.curves(points).axes
    assert [panel.get_title() for panel in panels] == ["loss", "recall"]
    assert panels[0].lines[0].get_ydata().tolist() == [2.0, 1.0]


def test_long_and_foreign_names_can_be_drawn(tmp_path: Path) -> None:
    table = pd.DataFrame({"label": ["x/" + "very-long-" * 5, "Äpfel & Birnen <süß>"], "fine.recall_at_1": [0.5, 1.0], "queries": [1, 1]})
    figure = figures.per_class_bars(table)
    figure.savefig(tmp_path / "f.png")
    assert max(len(label.get_text()) for label in figure.axes[0].get_yticklabels()) <= 22 + len(" (1)")

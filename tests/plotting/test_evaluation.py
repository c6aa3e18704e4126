"""Pictures show what they say: the right images, marked right or wrong."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.plotting import evaluation as figures
from deeprank.plotting import style
from deeprank.plotting.style import NEUTRAL, RIGHT, WRONG
from deeprank.triplets.sampling import Triplets


def _shown(figure: Figure) -> list[list[tuple[str, str]]]:
    """Return the lines of a grid: caption and color of each image in it."""
    lines: dict[int, list[tuple[str, str]]] = {}
    for axes in figure.axes:
        if axes.images:
            place = axes.get_subplotspec().rowspan.start
            lines.setdefault(place, []).append((axes.get_title(), to_hex(axes.spines["top"].get_edgecolor())))
    return [lines[place] for place in sorted(lines)]


def short(label: str) -> str:
    return label.rsplit("/", 1)[-1]


def test_a_triplet_is_a_line_of_query_positive_and_negative(catalogue: Catalogue, triplets: Triplets) -> None:
    drawn = triplets.of("train").head(3)
    lines = _shown(figures.triplet_grid(catalogue, drawn))
    assert [len(line) for line in lines] == [6, 3]
    labels = catalogue.frame["label"]
    expected = {(short(labels[t.query]), short(labels[t.positive]), short(labels[t.negative])) for t in drawn.itertuples()}
    cells = [line[start : start + 3] for line in lines for start in range(0, len(line), 3)]
    assert {tuple(caption.split("\n")[1] for caption, _ in three) for three in cells} == expected
    for (query, _), (positive, right), (negative, wrong) in cells:
        assert (query.split("\n")[0], positive[:8], negative[:8]) == ("query", "positive", "negative")
        assert (right, wrong) == (RIGHT, WRONG)


def _queries(catalogue: Catalogue, embeddings: np.ndarray) -> pd.DataFrame:
    """Return what each test query finds in train, by sorting distances."""
    labels, gallery, rows = catalogue.frame["label"].to_numpy(), catalogue.rows("train"), catalogue.rows("test")
    near = [gallery[np.argmin(np.linalg.norm(embeddings[gallery] - embeddings[row], axis=1))] for row in rows]
    hit = (labels[near] == labels[rows]).astype(float)
    average = (hit + np.linspace(0, 1, len(rows))) / 2
    return pd.DataFrame({"row": rows, "label": labels[rows], "fine.recall_at_1": hit, "fine.map_at_r": average, "nearest": near})


def test_neighbors_are_the_nearest_and_marked_by_their_class(catalogue: Catalogue, embeddings: np.ndarray) -> None:
    queries = _queries(catalogue, embeddings)
    lines = _shown(figures.neighbor_gallery(catalogue, embeddings, queries, catalogue.rows("train"), count=3))
    right, wrong = queries[queries["fine.recall_at_1"] == 1], queries[queries["fine.recall_at_1"] == 0]
    assert len(lines) == min(3, len(right)) + min(3, len(wrong))
    for line in lines:
        assert len(line) == 7
        asked = line[0][0].split("\n")[1]
        distances = [float(caption.split("\n")[0]) for caption, _ in line[1:]]
        assert distances == sorted(distances)
        for caption, color in line[1:]:
            assert color == (RIGHT if caption.split("\n")[1] == asked else WRONG)
    firsts = [line[1][1] for line in lines]
    assert firsts == sorted(firsts, key=[RIGHT, WRONG].index)


def test_the_best_and_the_worst_are_of_as_many_classes_as_there_are(catalogue: Catalogue, embeddings: np.ndarray) -> None:
    rows = np.flatnonzero(catalogue.frame["split"] != "train")
    labels = catalogue.frame["label"].to_numpy()[rows]
    first, second = sorted(set(labels))[:2]
    kept = np.isin(labels, [first, second])
    rows, labels = rows[kept], labels[kept]
    # Of the first class are all the worst queries but one.
    average = np.where(labels == first, 0.1, 0.3) + np.arange(len(rows)) * 1e-3
    queries = pd.DataFrame({"row": rows, "label": labels, "fine.recall_at_1": 0.0, "fine.map_at_r": average})
    lines = _shown(figures.neighbor_gallery(catalogue, embeddings, queries, catalogue.rows("train"), count=2))
    assert [line[0][0].split("\n")[1] for line in lines] == [short(first), short(second)]
    best = _shown(figures.neighbor_gallery(catalogue, embeddings, queries.assign(**{"fine.recall_at_1": 1.0}), catalogue.rows("train"), 1))
    assert [line[0][0].split("\n")[1] for line in best] == [short(second)]


def test_a_recall_curve_is_the_share_of_queries_that_found_theirs() -> None:
    axes = figures.recall_curve(
        {"trained": np.array([1, 1, 3, np.inf, np.nan]), "frozen": np.array([2, 2, np.inf, np.inf, np.nan])}, 4
    ).axes[0]
    assert [line.get_label() for line in axes.lines] == ["trained", "frozen"]
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.5, 0.75, 0.75]
    assert axes.lines[1].get_ydata().tolist() == [0, 0.5, 0.5, 0.5]


def test_confusion_shows_the_commonest_pairs_and_no_right_ones() -> None:
    true = ["a/x"] * 5 + ["a/y"] * 4 + ["b/z"] * 2 + ["c/absent"] * 3
    taken = ["a/y"] * 3 + ["a/x"] * 2 + ["a/y"] * 3 + ["b/z"] + ["a/x"] * 2 + ["a/x"] * 3
    recall = [float(t == p) for t, p in zip(true, taken, strict=True)][:11] + [np.nan] * 3
    axes = figures.confusion(pd.DataFrame({"label": true, "fine.recall_at_1": recall}, index=range(5, 19)), taken, count=2).axes[0]
    assert axes.get_title() == "6 of 11 queries are taken for another class"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z  →  x", "x  →  y"]
    assert sorted((round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in axes.patches) == [(0, 2), (1, 3)]
    assert [text.get_text().strip() for text in axes.texts] == ["2 of 2", "3 of 5"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["of the same folder", "of another folder"]
    none = figures.confusion(pd.DataFrame({"label": ["a"], "fine.recall_at_1": [1.0]}), ["a"]).axes[0]
    assert none.get_title() == "0 of 1 queries are taken for another class"


def test_gained_and_lost_shows_what_only_one_of_the_two_gets_right(catalogue: Catalogue, embeddings: np.ndarray, tmp_path: Path) -> None:
    labels = catalogue.frame["label"].to_numpy()
    rows = catalogue.rows("test")[:4]
    same = [next(i for i in catalogue.rows("train") if labels[i] == labels[row]) for row in rows]
    other = [next(i for i in catalogue.rows("train") if labels[i] != labels[row]) for row in rows]

    def found(hits: list[int]) -> pd.DataFrame:
        near = [same[i] if hit else other[i] for i, hit in enumerate(hits)]
        return pd.DataFrame({"row": rows, "label": labels[rows], "fine.recall_at_1": np.array(hits, dtype=float), "nearest": near})

    after, before = found([1, 1, 0, 1]), found([0, 1, 1, 0]).iloc[::-1]
    figure = figures.gained_and_lost(catalogue, after, before, before_name="champion, version 3")
    assert [half.get_suptitle() for half in figure.subfigs] == ["Gained: 2 of 4 queries", "Lost: 1 of 4 queries"]
    cells = [
        [(axes.get_title(), to_hex(axes.spines["top"].get_edgecolor())) for axes in half.axes if axes.images] for half in figure.subfigs
    ]
    assert [len(half) for half in cells] == [6, 3]
    assert {cells[0][i][0] for i in (0, 3)} == {f"query\n{short(labels[rows[i]])}" for i in (0, 3)}
    assert [color for _, color in cells[0]] == [NEUTRAL, WRONG, RIGHT] * 2
    asked, was, now = cells[1]
    assert asked == (f"query\n{short(labels[rows[2]])}", NEUTRAL)
    assert was == (f"champion, version 3\n{short(labels[rows[2]])}", RIGHT)
    assert now == (f"new model\n{short(labels[other[2]])}", WRONG)
    none = figures.gained_and_lost(catalogue, after, after)
    none.savefig(tmp_path / "none.png")
    assert [text.get_text() for half in none.subfigs for axes in half.axes for text in axes.texts] == ["none", "none"]


def test_a_sheet_shows_images_with_their_classes(catalogue: Catalogue) -> None:
    lines = _shown(figures.image_grid(catalogue, count=10))
    assert [len(line) for line in lines] == [8, 2]
    assert {caption for line in lines for caption, _ in line} <= {short(label) for label in catalogue.frame["label"]}
    assert sum(len(line) for line in _shown(figures.image_grid(catalogue, count=1000))) == len(catalogue.frame)


def test_a_tile_is_the_middle_of_its_image(catalogue: Catalogue) -> None:
    figure = style.draw_image_rows(catalogue, [[(4, "one", NEUTRAL)]], "a tile")
    with Image.open(io.BytesIO(catalogue.images([4])[0])) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        middle = image.crop((left, top, left + side, top + side)).resize((style.TILE, style.TILE))
    assert np.array_equal(figure.axes[0].images[0].get_array(), np.asarray(middle))


def test_bars_are_the_recall_of_each_class_worst_on_top() -> None:
    table = pd.DataFrame({"label": ["a/worst", "a/best"], "fine.recall_at_1": [0.25, 1.0], "queries": [4, 7]})
    axes = figures.per_class_bars(table).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.25]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["best (7)", "worst (4)"]


def test_of_many_classes_the_worst_have_bars_and_intervals_are_drawn() -> None:
    count = figures.CLASSES_SHOWN + 5
    recall = np.append(np.linspace(0, 1, count - 1), np.nan)
    table = pd.DataFrame({"label": [f"c{i}" for i in range(count)], "fine.recall_at_1": recall, "queries": 1})
    axes = figures.per_class_bars(table.assign(**{"fine.recall_at_1.low": recall - 0.1, "fine.recall_at_1.high": recall})).axes[0]
    assert len(axes.patches) == figures.CLASSES_SHOWN
    assert axes.get_yticklabels()[-1].get_text() == "c0 (1)"
    assert axes.get_title() == f"The {figures.CLASSES_SHOWN} worst of {count} classes"
    assert len(axes.collections[0].get_segments()) == figures.CLASSES_SHOWN
    lacking = figures.per_class_bars(table.tail(2)).axes[0]
    assert [text.get_text() for text in lacking.texts] == ["no image of it in the gallery"]


@pytest.mark.parametrize("count", [3, 20])
def test_a_map_has_a_point_a_image_colored_by_its_top_folder(count: int) -> None:
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

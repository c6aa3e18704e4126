"""Figures of an evaluation show the right images, marked correct or wrong, and the right numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.evaluation import (
    MAX_CLASS_BARS,
    confusion,
    embedding_map,
    neighbor_gallery,
    per_class_bars,
    recall_curve,
)
from deeprank.plotting.style import CORRECT_COLOR, WRONG_COLOR
from tests.plotting.reading import last_folder, tile_rows


def _by_distance(embeddings: np.ndarray, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return the gallery sorted by distance for each query."""
    return np.stack([gallery[np.argsort(np.linalg.norm(embeddings[gallery] - embeddings[row], axis=1))] for row in queries])


def _distances(embeddings: np.ndarray, queries: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(embeddings[neighbors] - embeddings[queries][:, None], axis=2).astype(np.float64)


def _query_table(catalogue: Catalogue, embeddings: np.ndarray) -> pd.DataFrame:
    """Return the test queries with their first neighbor in train."""
    labels, rows = catalogue.frame["label"].to_numpy(), catalogue.rows("test")
    nearest = _by_distance(embeddings, rows, catalogue.rows("train"))[:, 0]
    hit = (labels[nearest] == labels[rows]).astype(float)
    average_precision = (hit + np.linspace(0, 1, len(rows))) / 2
    return pd.DataFrame(
        {"row": rows, "label": labels[rows], "fine.recall_at_1": hit, "fine.map_at_r": average_precision, "nearest": nearest}
    )


def test_neighbors_are_the_nearest_marked_by_class(catalogue: Catalogue, embeddings: np.ndarray) -> None:
    queries = _query_table(catalogue, embeddings)
    neighbors = _by_distance(embeddings, catalogue.rows("test"), catalogue.rows("train"))[:, :6]
    distances = _distances(embeddings, catalogue.rows("test"), neighbors)
    rows = tile_rows(neighbor_gallery(catalogue, queries, neighbors, distances, count=3))
    correct, wrong = queries[queries["fine.recall_at_1"] == 1], queries[queries["fine.recall_at_1"] == 0]
    assert len(rows) == min(3, len(correct)) + min(3, len(wrong))
    for row in rows:
        assert len(row) == 7
        query_label = row[0][0].split("\n")[1]
        shown = [float(caption.split("\n")[0]) for caption, _ in row[1:]]
        assert shown == sorted(shown)
        assert any(shown == pytest.approx(expected, abs=0.006) for expected in distances)
        for caption, color in row[1:]:
            assert color == (CORRECT_COLOR if caption.split("\n")[1] == query_label else WRONG_COLOR)
    first_colors = [row[1][1] for row in rows]
    assert first_colors == sorted(first_colors, key=[CORRECT_COLOR, WRONG_COLOR].index)


def test_best_and_worst_queries_are_spread_over_classes(catalogue: Catalogue, embeddings: np.ndarray) -> None:
    rows = np.flatnonzero(catalogue.frame["split"] != "train")
    labels = catalogue.frame["label"].to_numpy()[rows]
    first, second = sorted(set(labels))[:2]
    in_either = np.isin(labels, [first, second])
    rows, labels = rows[in_either], labels[in_either]
    # All worst queries but one are of the first class.
    average_precision = np.where(labels == first, 0.1, 0.3) + np.arange(len(rows)) * 1e-3
    queries = pd.DataFrame({"row": rows, "label": labels, "fine.recall_at_1": 0.0, "fine.map_at_r": average_precision})
    neighbors = _by_distance(embeddings, rows, catalogue.rows("train"))[:, :6]
    distances = _distances(embeddings, rows, neighbors)
    worst = tile_rows(neighbor_gallery(catalogue, queries, neighbors, distances, count=2))
    assert [row[0][0].split("\n")[1] for row in worst] == [last_folder(first), last_folder(second)]
    best = tile_rows(neighbor_gallery(catalogue, queries.assign(**{"fine.recall_at_1": 1.0}), neighbors, distances, 1))
    assert [row[0][0].split("\n")[1] for row in best] == [last_folder(second)]


def test_a_recall_curve_is_the_share_of_queries_with_a_hit() -> None:
    axes = recall_curve({"trained": np.array([1, 1, 3, np.inf, np.nan]), "frozen": np.array([2, 2, np.inf, np.inf, np.nan])}, 4).axes[0]
    assert [line.get_label() for line in axes.lines] == ["trained", "frozen"]
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.5, 0.75, 0.75]
    assert axes.lines[1].get_ydata().tolist() == [0, 0.5, 0.5, 0.5]


def test_confusion_shows_the_most_frequent_wrong_pairs() -> None:
    true = ["a/x"] * 5 + ["a/y"] * 4 + ["b/z"] * 2 + ["c/absent"] * 3
    predicted = ["a/y"] * 3 + ["a/x"] * 2 + ["a/y"] * 3 + ["b/z"] + ["a/x"] * 2 + ["a/x"] * 3
    recall = [float(t == p) for t, p in zip(true, predicted, strict=True)][:11] + [np.nan] * 3
    axes = confusion(pd.DataFrame({"label": true, "fine.recall_at_1": recall}, index=range(5, 19)), predicted, count=2).axes[0]
    assert axes.get_title() == "6 of 11 queries have a first neighbor of another class"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z  →  x", "x  →  y"]
    assert sorted((round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in axes.patches) == [(0, 2), (1, 3)]
    assert [text.get_text().strip() for text in axes.texts] == ["2 of 2", "3 of 5"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["same parent folder", "different parent folders"]
    none = confusion(pd.DataFrame({"label": ["a"], "fine.recall_at_1": [1.0]}), ["a"]).axes[0]
    assert none.get_title() == "0 of 1 queries have a first neighbor of another class"


def test_bars_are_the_recall_of_each_class_lowest_on_top() -> None:
    table = pd.DataFrame({"label": ["a/worst", "a/best"], "fine.recall_at_1": [0.25, 1.0], "queries": [4, 7]})
    axes = per_class_bars(table).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.25]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["best (7)", "worst (4)"]


def test_only_the_lowest_of_many_classes_have_bars() -> None:
    count = MAX_CLASS_BARS + 5
    recall = np.append(np.linspace(0, 1, count - 1), np.nan)
    table = pd.DataFrame({"label": [f"c{i}" for i in range(count)], "fine.recall_at_1": recall, "queries": 1})
    axes = per_class_bars(table.assign(**{"fine.recall_at_1.low": recall - 0.1, "fine.recall_at_1.high": recall})).axes[0]
    assert len(axes.patches) == MAX_CLASS_BARS
    assert axes.get_yticklabels()[-1].get_text() == "c0 (1)"
    assert axes.get_title() == f"The {MAX_CLASS_BARS} of {count} classes with the lowest recall@1"
    assert len(axes.collections[0].get_segments()) == MAX_CLASS_BARS
    missing = per_class_bars(table.tail(2)).axes[0]
    assert [text.get_text() for text in missing.texts] == ["no image of this class in the gallery"]


@pytest.mark.parametrize("count", [3, 20])
def test_a_map_has_a_point_per_image_colored_by_top_folder(count: int) -> None:
    points = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    labels = [f"{'ab'[i % 2]}/{i % 3}" for i in range(count)]
    axes = embedding_map(points, labels).axes[0]
    assert sum(len(scatter.get_offsets()) for scatter in axes.collections) == count
    assert [scatter.get_label() for scatter in axes.collections] == ["a", "b"]
    assert {text.get_text() for text in axes.texts} == {label.split("/")[1] for label in labels}


def test_long_and_non_ascii_labels_can_be_drawn(tmp_path: Path) -> None:
    table = pd.DataFrame({"label": ["x/" + "very-long-" * 5, "Äpfel & Birnen <süß>"], "fine.recall_at_1": [0.5, 1.0], "queries": [1, 1]})
    figure = per_class_bars(table)
    figure.savefig(tmp_path / "f.png")
    assert max(len(label.get_text()) for label in figure.axes[0].get_yticklabels()) <= 22 + len(" (1)")

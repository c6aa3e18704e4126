"""Queries that a new model gains and loses."""

from pathlib import Path

import numpy as np
import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.gate import gained_and_lost
from deeprank.plotting.style import CORRECT_COLOR, NEUTRAL_COLOR, WRONG_COLOR
from tests.plotting.reading import last_folder, tiles


def test_queries_that_one_model_gets_right_are_drawn(catalogue: Catalogue, tmp_path: Path) -> None:
    labels = catalogue.frame["label"].to_numpy()
    queries = catalogue.rows("test")[:4]
    same_class = [next(i for i in catalogue.rows("train") if labels[i] == labels[row]) for row in queries]
    other_class = [next(i for i in catalogue.rows("train") if labels[i] != labels[row]) for row in queries]

    def query_table(hits: list[int]) -> pd.DataFrame:
        nearest = [same_class[i] if hit else other_class[i] for i, hit in enumerate(hits)]
        columns = {"row": queries, "label": labels[queries], "fine.recall_at_1": np.array(hits, dtype=float), "nearest": nearest}
        return pd.DataFrame(columns)

    challenger, champion = query_table([1, 1, 0, 1]), query_table([0, 1, 1, 0]).iloc[::-1]
    figure = gained_and_lost(catalogue, challenger, champion, champion_name="champion, version 3")
    assert [half.get_suptitle() for half in figure.subfigs] == ["Gained: 2 of 4 queries", "Lost: 1 of 4 queries"]
    gained, lost = (tiles(half) for half in figure.subfigs)
    assert [len(gained), len(lost)] == [6, 3]
    assert {gained[i][0] for i in (0, 3)} == {f"query\n{last_folder(labels[queries[i]])}" for i in (0, 3)}
    assert [color for _, color in gained] == [NEUTRAL_COLOR, WRONG_COLOR, CORRECT_COLOR] * 2
    assert lost == [
        (f"query\n{last_folder(labels[queries[2]])}", NEUTRAL_COLOR),
        (f"champion, version 3\n{last_folder(labels[queries[2]])}", CORRECT_COLOR),
        (f"new model\n{last_folder(labels[other_class[2]])}", WRONG_COLOR),
    ]
    unchanged = gained_and_lost(catalogue, challenger, challenger)
    unchanged.savefig(tmp_path / "none.png")
    assert [text.get_text() for half in unchanged.subfigs for axes in half.axes for text in axes.texts] == ["none", "none"]

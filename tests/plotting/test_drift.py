"""Figures of drift mark the classes that drifted."""

import numpy as np
import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.drift import class_drift_bars, farthest_pairs
from deeprank.plotting.style import CORRECT_COLOR, NEUTRAL_COLOR, WRONG_COLOR
from deeprank.row_numbers import CatalogueRows
from tests.plotting.reading import last_folder, tiles


def test_bars_of_drifted_classes_have_another_color() -> None:
    table = pd.DataFrame(
        {"label": ["x/far", "x/near"], "new": [9, 8], "reference": [20, 30], "statistic": [0.4, 0.01], "p_adjusted": [0.01, 0.6]}
    )
    axes = class_drift_bars(table, 0.05).axes[0]
    assert sorted((bar.get_width(), bar.get_y() > 0) for bar in axes.patches) == [(0.01, False), (0.4, True)]
    assert len({bar.get_facecolor() for bar in axes.patches}) == 2
    assert [label.get_text() for label in axes.get_yticklabels()] == ["near (8 new, 30)", "far (9 new, 20)"]


def test_pairs_are_farthest_first_and_colored_by_class(catalogue: Catalogue) -> None:
    frame = catalogue.frame
    other = int(np.flatnonzero(frame["label"] != frame["label"][0])[0])
    new_rows = CatalogueRows(np.array([0, other]))
    figure = farthest_pairs(catalogue, new_rows, [frame["id"][1], "removed"], np.array([0.2, 0.7]))
    first, second = last_folder(frame["label"][0]), last_folder(frame["label"][other])
    assert frame["label"][1] == frame["label"][0]
    assert tiles(figure) == [
        (f"new (its nearest was removed)\n{second}", NEUTRAL_COLOR),
        (f"new\n{first}", NEUTRAL_COLOR),
        (f"nearest, at 0.20\n{first}", CORRECT_COLOR),
    ]
    figure = farthest_pairs(catalogue, new_rows[:1], [frame["id"][other]], np.array([0.2]))
    assert tiles(figure)[1][1] == WRONG_COLOR

"""The filter by label: exact in its levels, and an unknown label is answered with the nearest ones."""

import pandas as pd
import pytest

from deeprank.errors import DataError
from deeprank.search.label_filter import label_levels, select_label

LABELS = pd.Series(["Fruit/Apple", "Fruit/Apple/Gala", "Fruit/Apples", "Packages/Käse "])


@pytest.mark.parametrize(
    ("label_prefix", "selected"),
    [
        ("Fruit/Apple", [True, True, False, False]),
        ("/Fruit/", [True, True, True, False]),
        ("Packages/Ka\u0308se ", [False, False, False, True]),
        ("/", [True] * 4),
    ],
)
def test_a_label_selects_itself_and_those_below_it(label_prefix: str, selected: list[bool]) -> None:
    assert select_label(LABELS, label_prefix).tolist() == selected


@pytest.mark.parametrize(
    ("label_prefix", "names"),
    [
        ("Fruit/Aple", "nearest: Fruit/Apple"),
        ("fruit/apple", "nearest: Fruit/Apple"),
        ("Gala", "nearest: Fruit/Apple/Gala"),
        ("packages/ka\u0308se", "nearest: Packages/Käse "),
        ("zzzz", "known: Fruit, Fruit/Apple, Fruit/Apple/Gala, Fruit/Apples, Packages and 1 more"),
    ],
)
def test_a_filter_that_matches_nothing_names_labels(label_prefix: str, names: str) -> None:
    with pytest.raises(DataError) as error:
        select_label(LABELS, label_prefix)
    assert str(error.value).startswith(f"no image has the label {label_prefix} or one below it; {names}")


def test_levels_of_a_label() -> None:
    assert label_levels("a/b/c") == ["a", "a/b", "a/b/c"]

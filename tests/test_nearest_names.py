"""Nearest known names, compared without Unicode form, case and spaces at the ends."""

import pytest

from deeprank.nearest_names import nearest_names

KNOWN = ["Fruit", "Fruit/Apple", "Fruit/Pear", "Packages", "Packages/Käse ", "train_split"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Fruit/Aple", "Fruit/Apple"),
        ("fruit/apple", "Fruit/Apple"),
        ("Apple", "Fruit/Apple"),
        ("Vegetables/Pear", "Fruit/Pear"),
        ("Ka\u0308se", "Packages/Käse "),
        ("PACKAGES/KÄSE", "Packages/Käse "),
        ("train_splits", "train_split"),
    ],
)
def test_the_nearest_name_is_first(name: str, nearest: str) -> None:
    assert nearest_names(name, KNOWN)[0] == nearest


def test_names_are_at_most_the_count_and_each_is_named_once() -> None:
    names = nearest_names("apple", ["apple", "Apple", "a/apple", "apples"])
    assert len(names) == len(set(names)) == 3
    assert nearest_names("apple", ["apple", "Apple", "apples"], 1) == ["apple"]


def test_a_name_that_is_like_no_other_has_none() -> None:
    assert nearest_names("zzzz", KNOWN) == []

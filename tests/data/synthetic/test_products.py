"""Label paths of the synthetic classes: unique, nested, and balanced for the default number of classes."""

from collections import Counter

import pytest

from deeprank.data.synthetic import label_path
from deeprank.data.synthetic.products import KINDS
from deeprank.errors import DataError


def test_the_first_classes_have_kinds_of_three_variants() -> None:
    labels = [label_path(c) for c in range(36)]
    kinds = Counter(kind for _, kind, _ in labels)
    assert set(kinds.values()) == {3}
    categories = Counter(category for category, _ in {(category, kind) for category, kind, _ in labels})
    assert len(categories) == 6
    assert min(categories.values()) >= 2


def test_labels_are_unique_readable_and_nested() -> None:
    labels = [label_path(c) for c in range(500)]
    assert len(set(labels)) == len({variant for _, _, variant in labels}) == 500
    assert len({kind for _, kind, _ in labels}) == len({(category, kind) for category, kind, _ in labels}) == len(KINDS)
    assert label_path(2) == ("bottles", "juice-bottle", "juice-bottle-03")
    for _, kind, variant in labels:
        assert variant.startswith(kind + "-")


def test_a_negative_class_index_is_refused() -> None:
    with pytest.raises(DataError, match="class_index"):
        label_path(-1)

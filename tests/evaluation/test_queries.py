"""Of a large test split a sample is evaluated: the same share of each class, and the same images each time."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.queries import evaluation_queries

SIZES = {"a": 400, "b": 200, "c": 40, "d": 1}


def catalogue_of(sizes: dict[str, int]) -> Catalogue:
    """Return a catalogue without images: each class in the test split, and one train image between the classes."""
    rows = [(label, split) for label, size in sizes.items() for split in ["test"] * size + ["train"]]
    frame = pd.DataFrame(rows, columns=["label", "split"])
    frame["id"] = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(frame))]
    catalogue = Catalogue("none", 1)
    catalogue.__dict__["frame"] = frame
    return catalogue


def test_a_small_test_split_is_evaluated_as_a_whole() -> None:
    catalogue = catalogue_of(SIZES)
    assert evaluation_queries(catalogue).tolist() == catalogue.rows("test").tolist()


@pytest.mark.parametrize("limit", [64, 320])
def test_a_sample_has_the_same_share_of_each_class(limit: int) -> None:
    catalogue = catalogue_of(SIZES)
    rows = evaluation_queries(catalogue, limit)
    assert len(rows) == limit
    assert rows.tolist() == sorted(set(rows) & set(catalogue.rows("test")))
    counts = catalogue.frame["label"].iloc[rows].value_counts()
    for label, size in SIZES.items():
        assert abs(counts.get(label, 0) - size * limit / sum(SIZES.values())) <= 1


def test_the_sample_does_not_depend_on_the_order_of_the_rows() -> None:
    catalogue = catalogue_of(SIZES)
    shuffled = Catalogue("none", 1)
    shuffled.__dict__["frame"] = catalogue.frame.sample(frac=1, random_state=1).reset_index(drop=True)
    samples = [set(each.frame["id"].iloc[evaluation_queries(each, 100)]) for each in (catalogue, shuffled)]
    assert samples[0] == samples[1]
    assert not np.array_equal(evaluation_queries(catalogue, 100), np.arange(100))


def test_the_share_of_many_small_classes_is_sampled_too() -> None:
    sizes = {f"small-{number}": 1 for number in range(2000)} | {f"large-{number}": 20 for number in range(100)}
    catalogue = catalogue_of(sizes)
    labels = catalogue.frame["label"].iloc[evaluation_queries(catalogue, 1000)]
    assert 400 < labels.str.startswith("small").sum() < 600

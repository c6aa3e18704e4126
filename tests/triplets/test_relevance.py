"""Graded relevance against a loop over the folders of two labels."""

import itertools
import random

import numpy as np
import pytest
from pydantic import ValidationError

from deeprank.triplets.relevance import RelevanceWeights, coarse_labels, encode_hierarchy, relevance, relevance_by_depth

LABELS = ["Fruit/Apple/Golden", "Fruit/Apple/Pink", "Fruit/Pear/Golden", "Vegetables/Garlic", "Vegetables/Onion/Red", "Fruit/Apple/Golden"]


def _relevance_by_loop(first: str, second: str, depth: int, weights: RelevanceWeights) -> float:
    if first == second:
        return weights.leaf
    # A shorter label counts as its own only subfolder.
    a, b = ([*label.split("/"), *[f"only subfolder of {label}"] * depth][:depth] for label in (first, second))
    shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=True))))
    if shared == 0:
        return 0
    return weights.parent if shared == depth - 1 else weights.top


def _all_pairs(labels: list[str], weights: RelevanceWeights) -> tuple[np.ndarray, np.ndarray]:
    depth = max(label.count("/") + 1 for label in labels)
    n = len(labels)
    i, j = np.divmod(np.arange(n * n), n)
    by_loop = [_relevance_by_loop(labels[a], labels[b], depth, weights) for a, b in zip(i, j, strict=True)]
    return relevance(encode_hierarchy(labels), i, j, weights), np.array(by_loop, dtype=np.float32)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_relevance_depends_on_the_shared_folders(depth: int) -> None:
    rng = random.Random(depth)
    labels = ["/".join(f"{level}{rng.randrange(2)}" for level in range(depth)) for _ in range(25)]
    computed, by_loop = _all_pairs(labels, RelevanceWeights())
    assert (computed == by_loop).all()
    assert set(computed.tolist()) == {1: {0, 1}, 2: {0, 0.5, 1}, 3: {0, 0.25, 0.5, 1}, 4: {0, 0.25, 0.5, 1}}[depth]


def test_a_shorter_label_counts_as_its_own_only_subfolder() -> None:
    computed, by_loop = _all_pairs([*LABELS, "Fruit", "Fruit/Apple"], RelevanceWeights())
    assert (computed == by_loop).all()


def test_relevance_is_symmetric_and_uses_the_weights() -> None:
    weights = RelevanceWeights(leaf=5, parent=2, top=1)
    computed, by_loop = _all_pairs(LABELS, weights)
    matrix = computed.reshape(len(LABELS), -1)
    assert (computed == by_loop).all()
    assert (matrix == matrix.T).all()
    assert matrix[0].tolist() == [5, 2, 1, 0, 0, 5]


def test_equal_names_in_different_folders_are_two_classes() -> None:
    codes = encode_hierarchy(["Apple/Golden", "Pear/Golden", "Apple/Golden"])
    assert codes[:, -1].tolist()[0] == codes[:, -1].tolist()[2] != codes[:, -1].tolist()[1]


def test_code_columns_go_from_coarse_to_fine() -> None:
    codes = encode_hierarchy(LABELS)
    assert codes.shape == (6, 3)
    assert [len(np.unique(column)) for column in codes.T] == [2, 4, 5]


def test_no_labels_have_no_codes() -> None:
    assert encode_hierarchy([]).shape == (0, 1)


@pytest.mark.parametrize(("depth", "expected"), [(1, [0, 1]), (2, [0, 0.5, 1]), (4, [0, 0.25, 0.25, 0.5, 1])])
def test_relevance_rises_with_the_number_of_shared_folders(depth: int, expected: list[float]) -> None:
    assert relevance_by_depth(depth, RelevanceWeights()).tolist() == expected


def test_a_shallow_label_is_a_coarse_class_of_its_own() -> None:
    assert coarse_labels(LABELS) == ["Fruit/Apple", "Fruit/Apple", "Fruit/Pear", "Vegetables/Garlic", "Vegetables/Onion", "Fruit/Apple"]
    coarse = encode_hierarchy(LABELS)[:, -2]
    names = np.unique(coarse_labels(LABELS), return_inverse=True)[1]
    assert ((coarse[:, None] == coarse) == (names[:, None] == names)).all()


def test_labels_of_one_folder_are_their_own_coarse_labels() -> None:
    assert coarse_labels(["a", "b"]) == ["a", "b"]


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValidationError):
        RelevanceWeights(top=-0.1)

"""Names of groups: the most frequent label, and the deepest folder with more than half of the images."""

import numpy as np
import pytest

from deeprank.search.cluster_labels import majority_folder, majority_label


def test_majority_label_is_the_most_frequent_one() -> None:
    result = majority_label(["b", "a", "a", "c", "b", "d"], np.array([0, 0, 0, 1, 1, 2]))
    assert result["label"].tolist() == ["a", "b", "d"]
    assert result["share"].tolist() == pytest.approx([2 / 3, 1 / 2, 1])


def test_majority_folder_is_the_deepest_with_more_than_half() -> None:
    labels = ["F/Apple/Gala", "F/Apple/Gala", "F/Pear", "V/Leek", "F/Apple/Gala", "F/Apple/Pink", "F/Plum", "A", "B", "F/Pear/X"]
    result = majority_folder(labels, np.array([0, 0, 0, 1, 2, 2, 2, 3, 3, 4]))
    assert result["label"].tolist() == ["F/Apple/Gala", "V/Leek", "F/Apple", "A", "F/Pear/X"]
    assert result["share"].tolist() == pytest.approx([2 / 3, 1, 2 / 3, 1 / 2, 1])

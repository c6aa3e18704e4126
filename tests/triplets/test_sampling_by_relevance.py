"""Triplets by graded relevance have the frequencies of the rules of Wang et al. 2014, enumerated over all triplets."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from deeprank.errors import DataError
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy, relevance
from deeprank.triplets.sampling import IMAGES_PER_DRAW, SampleSettings, sample_triplets
from tests.triplets.conftest import create_frame

TREE = {"a/x/1": 3, "a/x/2": 2, "a/y/1": 2, "a/z/1": 1, "b/x/1": 2, "b/y/1": 2, "c/x/1": 1}
NAMES = ["query", "positive", "negative"]


def triplet_probabilities(
    labels: list[str], settings: SampleSettings, weight: Callable[[float, int], float], query_weight: Callable[[int], float]
) -> dict:
    """Return the probability of each triplet by the rule of the paper: a query, then a positive and a negative with the margin."""
    codes, rows = encode_hierarchy(labels), np.arange(len(labels))
    r = np.array([relevance(codes, np.full(len(rows), i), rows, settings.weights) for i in rows], dtype=float)
    probabilities = {}
    for i in rows:
        same_category = [j for j in rows if j != i and codes[j, 0] == codes[i, 0]]
        other_categories = [j for j in rows if codes[j, 0] != codes[i, 0]]
        weight_sum = sum(weight(r[i, j], j) for j in same_category)
        negatives = {j: settings.same_category_fraction * weight(r[i, j], j) / weight_sum for j in same_category} if weight_sum else {}
        negatives |= {j: (1 - settings.same_category_fraction) / len(other_categories) for j in other_categories}
        pairs = {
            (i, p, n): weight(r[i, p], p) * share
            for p in same_category
            for n, share in negatives.items()
            if r[i, p] - r[i, n] >= settings.relevance_margin - 1e-6
        }
        total = sum(pairs.values())
        probabilities |= {triplet: query_weight(i) * share / total for triplet, share in pairs.items() if total and share}
    total = sum(probabilities.values())
    return {triplet: share / total for triplet, share in probabilities.items()}


def has_probabilities(triplets: np.ndarray, expected: dict) -> bool:
    """Return whether triplets are as frequent as expected, by a chi-square test; fail for a triplet that is not expected."""
    times = Counter(map(tuple, triplets.tolist()))
    assert set(times) <= set(expected)
    observed = np.array([times.get(triplet, 0) for triplet in expected])
    return chisquare(observed, len(triplets) * np.array(list(expected.values()))).pvalue > 0.001


def total_relevance(labels: list[str], weights: RelevanceWeights) -> list[float]:
    """Return the relevance of each image to all other images of its category."""
    codes, rows = encode_hierarchy(labels), np.arange(len(labels))
    return [
        sum(float(relevance(codes, np.array([i]), np.array([j]), weights)[0]) for j in rows if j != i and codes[i, 0] == codes[j, 0])
        for i in rows
    ]


@pytest.mark.parametrize("sizes", [TREE, {"a": 4, "b": 3, "c": 1}, {"a/x": 3, "a/y": 2, "b": 2}], ids=["deep", "flat", "mixed"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relevance_margin": 0.3, "same_category_fraction": 0.7},
        {"max_positive_relevance": 0.4, "same_category_fraction": 0.0},
        {"weights": {"leaf": 3, "parent": 2, "top": 1}},
    ],
    ids=["default", "relevance_margin", "max_positive_relevance", "weights"],
)
def test_relevance_has_the_probabilities_of_the_offline_rule(sizes: dict[str, int], options: dict) -> None:
    frame, settings = create_frame(sizes), SampleSettings(method="relevance", count=100_000, **options)
    labels = frame["label"].tolist()
    total = total_relevance(labels, settings.weights)
    expected = triplet_probabilities(labels, settings, lambda r, _: min(settings.max_positive_relevance, r), lambda i: total[i])
    triplets = sample_triplets(frame, settings).frame
    assert len(triplets) == 100_000
    assert has_probabilities(triplets[NAMES].to_numpy(), expected)


@pytest.mark.parametrize("sizes", [TREE, {"a": 4, "b": 3, "c": 1}], ids=["deep", "flat"])
def test_a_buffer_of_all_images_has_the_online_probabilities(sizes: dict[str, int]) -> None:
    frame, settings = create_frame(sizes), SampleSettings(method="buffer", count=100_000, same_category_fraction=0.6)
    labels = frame["label"].tolist()
    total = total_relevance(labels, settings.weights)
    expected = triplet_probabilities(labels, settings, lambda r, j: min(1, r / total[j]) if r else 0, lambda _: 1)
    assert has_probabilities(sample_triplets(frame, settings).frame[NAMES].to_numpy(), expected)


@pytest.mark.parametrize("method", ["relevance", "buffer"])
@pytest.mark.parametrize("relevance_margin", [0.1, 0.25, 0.5, 0.6])
def test_triplets_have_the_margin_and_stay_in_their_split(images: pd.DataFrame, method: str, relevance_margin: float) -> None:
    triplets = sample_triplets(images, SampleSettings(method=method, relevance_margin=relevance_margin, buffer_size=4)).frame
    assert (triplets["relevance_positive"] - triplets["relevance_negative"]).min() >= relevance_margin
    assert (triplets["query"] != triplets["positive"]).all()
    assert set(triplets["split"]) == {"train", "val", "test"}
    splits = images["split"].to_numpy()
    assert all((splits[triplets[name]] == triplets["split"]).all() for name in NAMES)


@pytest.mark.parametrize("method", ["relevance", "buffer"])
def test_count_is_the_number_of_train_triplets_only(images: pd.DataFrame, method: str) -> None:
    triplets = sample_triplets(images, SampleSettings(method=method, count=77, positives=2, negatives=3))
    assert len(triplets.in_split("train")) == 77
    assert len(triplets.in_split("val")) == (images["split"] == "val").sum() * 6


def test_later_images_replace_earlier_ones_in_the_buffers() -> None:
    frame = pd.DataFrame({"label": [f"{i % 3}/{i % 7}" for i in range(2 * IMAGES_PER_DRAW + 5)], "split": "train"})
    triplets = sample_triplets(frame, SampleSettings(method="buffer", count=20_000, buffer_size=50)).frame
    assert len(triplets) == 20_000
    # The buffers hold 150 images; three draws from unchanged buffers would have at most 150 queries.
    assert 150 < len(np.unique(triplets["query"])) <= 3 * 150


@pytest.mark.parametrize("method", ["relevance", "buffer"])
def test_a_margin_that_no_two_relevances_have_is_refused(method: str) -> None:
    with pytest.raises(DataError, match=r"no triplet whose relevances differ by 0\.1"):
        sample_triplets(create_frame({"a": 5, "b": 5}), SampleSettings(method=method, same_category_fraction=1))
    with pytest.raises(DataError, match="no triplet whose relevances differ by 2"):
        sample_triplets(create_frame(TREE), SampleSettings(method=method, relevance_margin=2))

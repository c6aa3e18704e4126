"""Every triplet is one, drawn as promised: checked by loops, and by chi-square with fixed seeds."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from deeprank.errors import DataError
from deeprank.triplets.relevance import levels, relevance
from deeprank.triplets.sampling import COLUMNS, SampleSettings, sample_triplets

SIZES = {"Fruit/Apple/Golden": 9, "Fruit/Apple/Pink": 5, "Fruit/Pear/Conference": 7, "Vegetables/Leek/Leek": 3, "Vegetables/Onion/Red": 1}


def frame_of(sizes: dict[str, int], split: str = "train", shuffle: int = 0) -> pd.DataFrame:
    """A catalogue's frame with so many photographs of each class, in random order."""
    labels = np.random.default_rng(shuffle).permutation([label for label, size in sizes.items() for _ in range(size)])
    return pd.DataFrame({"label": labels.tolist(), "split": split})


@pytest.fixture(scope="module")
def photographs() -> pd.DataFrame:
    """All classes in every split, the splits' rows mixed."""
    parts = [frame_of(SIZES, split, seed) for seed, split in enumerate(("train", "val", "test"))]
    return pd.concat(parts).sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.mark.parametrize("near_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 3), (6, 2)])
def test_every_triplet_is_one(photographs: pd.DataFrame, positives: int, negatives: int, near_share: float) -> None:
    settings = SampleSettings(positives=positives, negatives=negatives, near_share=near_share)
    drawn = sample_triplets(photographs, settings, "print")
    assert drawn.fingerprint == "print"
    assert drawn.frame.columns.tolist() == COLUMNS
    labels, splits = photographs["label"], photographs["split"]
    for t in drawn.frame.itertuples():
        assert t.query != t.positive
        assert labels[t.query] == labels[t.positive] != labels[t.negative]
        assert splits[t.query] == splits[t.positive] == splits[t.negative] == t.split
    partners = {row: int(((labels == labels[row]) & (splits == splits[row])).sum()) - 1 for row in photographs.index}
    queries = Counter(drawn.frame["query"])
    assert queries == {row: positives * negatives for row, others in partners.items() if others}
    for query, mine in drawn.frame.groupby("query"):
        times = Counter(mine["positive"])
        assert len(times) == min(positives, partners[query])
        assert max(times.values()) - min(times.values()) in (0, negatives)


def test_relevance_columns_are_the_relevance_of_the_pairs(photographs: pd.DataFrame) -> None:
    settings = SampleSettings(near_share=0.5)
    drawn = sample_triplets(photographs, settings).frame
    codes = levels(photographs["label"].tolist())
    for name in ("positive", "negative"):
        expected = relevance(codes, drawn["query"].to_numpy(), drawn[name].to_numpy(), settings.weights)
        assert (drawn[f"relevance_{name}"].to_numpy() == expected).all()
    assert set(drawn["relevance_positive"]) == {1.0}
    assert set(drawn["relevance_negative"]) == {0.0, 0.25, 0.5}


def _counts(drawn: pd.DataFrame, column: str, candidates: pd.Index) -> list[int]:
    found = drawn[column].value_counts()
    assert set(found.index) <= set(candidates)
    return [int(found.get(row, 0)) for row in candidates]


@pytest.mark.parametrize("label", [label for label, size in SIZES.items() if size > 1])
def test_negatives_are_uniform_over_all_photographs_of_other_classes(label: str) -> None:
    frame = frame_of(SIZES)
    drawn = sample_triplets(frame, SampleSettings(positives=4, negatives=200, seed=1)).frame
    mine = drawn[frame["label"].to_numpy()[drawn["query"]] == label]
    assert chisquare(_counts(mine, "negative", frame.index[frame["label"] != label])).pvalue > 0.001


@pytest.mark.parametrize("size", [3, 6, 7])
def test_each_other_photograph_of_the_class_is_the_positive_equally_often(size: int) -> None:
    frame = frame_of({f"{number:03d}": size for number in range(300)})
    drawn = sample_triplets(frame, SampleSettings(positives=2, negatives=1)).frame
    rank = frame.groupby("label").cumcount().to_numpy()
    pairs = Counter(zip(rank[drawn["query"]].tolist(), rank[drawn["positive"]].tolist(), strict=True))
    assert len(pairs) == size * (size - 1)
    assert chisquare(list(pairs.values())).pvalue > 0.001


def test_near_negatives_are_uniform_over_the_coarse_class() -> None:
    frame = frame_of(SIZES)
    drawn = sample_triplets(frame, SampleSettings(positives=2, negatives=200, near_share=1)).frame
    labels = frame["label"]
    mine = drawn[labels.to_numpy()[drawn["query"]] == "Fruit/Apple/Golden"]
    assert chisquare(_counts(mine, "negative", frame.index[labels == "Fruit/Apple/Pink"])).pvalue > 0.001


def test_a_coarse_class_of_one_fine_class_takes_negatives_from_anywhere() -> None:
    frame = frame_of(SIZES)
    drawn = sample_triplets(frame, SampleSettings(positives=2, negatives=200, near_share=1)).frame
    labels = frame["label"]
    mine = drawn[labels.to_numpy()[drawn["query"]] == "Fruit/Pear/Conference"]
    assert chisquare(_counts(mine, "negative", frame.index[labels != "Fruit/Pear/Conference"])).pvalue > 0.001


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_the_near_share_is_the_share_of_near_negatives(share: float) -> None:
    frame = frame_of({f"{top}/{leaf}": 5 for top in "abcd" for leaf in "123"})
    drawn = sample_triplets(frame, SampleSettings(positives=4, negatives=100, near_share=share)).frame
    tops = frame["label"].str[0].to_numpy()
    near = (tops[drawn["query"]] == tops[drawn["negative"]]).mean()
    # Of the uniform rest, 10 of the 55 photographs of other classes lie near by chance.
    assert near == pytest.approx(share + (1 - share) * 10 / 55, abs=0.02)


def test_the_same_seed_draws_the_same_triplets_and_another_seed_others(photographs: pd.DataFrame) -> None:
    first, again, other = (sample_triplets(photographs, SampleSettings(seed=seed)).frame for seed in (3, 3, 4))
    assert first.equals(again)
    assert not first.equals(other)


def test_another_split_does_not_change_the_triplets_of_this_one() -> None:
    train, test = frame_of(SIZES), frame_of(SIZES, "test", 1)
    alone = sample_triplets(train, SampleSettings()).frame
    together = sample_triplets(pd.concat([train, test], ignore_index=True), SampleSettings())
    assert together.of("train").equals(alone)
    assert len(together.of("test"))
    assert len(together.of("val")) == 0


def test_a_photograph_alone_in_its_class_is_a_negative_but_no_query() -> None:
    frame = frame_of(SIZES)
    alone = frame.index[frame["label"] == "Vegetables/Onion/Red"][0]
    drawn = sample_triplets(frame, SampleSettings(negatives=20)).frame
    assert alone not in set(drawn["query"]) | set(drawn["positive"])
    assert alone in set(drawn["negative"])


@pytest.mark.parametrize("sizes", [{"a": 5}, {"a": 1, "b": 1}], ids=["one class", "no pair"])
def test_a_train_split_without_a_triplet_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="the train split has no class of two photographs beside another class"):
        sample_triplets(frame_of(sizes), SampleSettings())


@pytest.mark.parametrize("wrong", [{"positives": 0}, {"negatives": 0}, {"near_share": 1.1}, {"positive": 2}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SampleSettings(**wrong)

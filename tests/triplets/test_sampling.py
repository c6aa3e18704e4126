"""Sampled triplets against loops over all images, and their frequencies by chi-square tests with fixed seeds."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from deeprank.errors import DataError
from deeprank.triplets.relevance import encode_hierarchy, relevance
from deeprank.triplets.sampling import COLUMNS, SampleSettings, rows_without_positive, sample_triplets
from deeprank.triplets.textfile import write_triplet_file
from tests.triplets.conftest import SIZES, create_frame


@pytest.mark.parametrize("same_parent_fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 3), (6, 2)])
def test_positives_share_the_class_and_negatives_do_not(
    images: pd.DataFrame, positives: int, negatives: int, same_parent_fraction: float
) -> None:
    settings = SampleSettings(positives=positives, negatives=negatives, same_parent_fraction=same_parent_fraction)
    sampled = sample_triplets(images, settings, "fingerprint")
    assert sampled.fingerprint == "fingerprint"
    assert sampled.frame.columns.tolist() == COLUMNS
    labels, splits = images["label"], images["split"]
    for t in sampled.frame.itertuples():
        assert t.query != t.positive
        assert labels[t.query] == labels[t.positive] != labels[t.negative]
        assert splits[t.query] == splits[t.positive] == splits[t.negative] == t.split
    partners = {row: int(((labels == labels[row]) & (splits == splits[row])).sum()) - 1 for row in images.index}
    queries = Counter(sampled.frame["query"])
    assert queries == {row: positives * negatives for row, others in partners.items() if others}
    for query, triplets in sampled.frame.groupby("query"):
        times = Counter(triplets["positive"])
        assert len(times) == min(positives, partners[query])
        assert max(times.values()) - min(times.values()) in (0, negatives)


def test_relevance_columns_are_the_relevance_of_the_pairs(images: pd.DataFrame) -> None:
    settings = SampleSettings(same_parent_fraction=0.5)
    triplets = sample_triplets(images, settings).frame
    codes = encode_hierarchy(images["label"].tolist())
    for name in ("positive", "negative"):
        expected = relevance(codes, triplets["query"].to_numpy(), triplets[name].to_numpy(), settings.weights)
        assert (triplets[f"relevance_{name}"].to_numpy() == expected).all()
    assert set(triplets["relevance_positive"]) == {1.0}
    assert set(triplets["relevance_negative"]) == {0.0, 0.25, 0.5}


def _triplets_of_class(label: str, settings: SampleSettings) -> tuple[pd.Series, pd.DataFrame]:
    """Return the labels of a frame, and the triplets sampled from it whose query has a label."""
    frame = create_frame(SIZES)
    triplets = sample_triplets(frame, settings).frame
    return frame["label"], triplets[frame["label"].to_numpy()[triplets["query"]] == label]


def _counts(triplets: pd.DataFrame, column: str, candidates: pd.Index) -> list[int]:
    counts = triplets[column].value_counts()
    assert set(counts.index) <= set(candidates)
    return [int(counts.get(row, 0)) for row in candidates]


@pytest.mark.parametrize("label", [label for label, size in SIZES.items() if size > 1])
def test_negatives_are_uniform_over_images_of_other_classes(label: str) -> None:
    labels, triplets = _triplets_of_class(label, SampleSettings(positives=4, negatives=200, seed=1))
    assert chisquare(_counts(triplets, "negative", labels.index[labels != label])).pvalue > 0.001


@pytest.mark.parametrize("size", [3, 6, 7])
def test_positives_are_uniform_over_the_class(size: int) -> None:
    frame = create_frame({f"{number:03d}": size for number in range(300)})
    triplets = sample_triplets(frame, SampleSettings(positives=2, negatives=1)).frame
    rank = frame.groupby("label").cumcount().to_numpy()
    pairs = Counter(zip(rank[triplets["query"]].tolist(), rank[triplets["positive"]].tolist(), strict=True))
    assert len(pairs) == size * (size - 1)
    assert chisquare(list(pairs.values())).pvalue > 0.001


def test_every_set_of_positives_is_equally_frequent() -> None:
    frame = create_frame({f"{number:03d}": 8 for number in range(400)})
    triplets = sample_triplets(frame, SampleSettings(positives=3, negatives=1)).frame
    rank = frame.groupby("label").cumcount().to_numpy()
    of_first_images = triplets[rank[triplets["query"]] == 0]
    sets = Counter(tuple(sorted(rank[positives].tolist())) for _, positives in of_first_images.groupby("query")["positive"])
    assert len(sets) == 7 * 6 * 5 / 6
    assert chisquare(list(sets.values())).pvalue > 0.001


def test_same_parent_negatives_are_uniform_over_the_coarse_class() -> None:
    settings = SampleSettings(positives=2, negatives=200, same_parent_fraction=1)
    labels, triplets = _triplets_of_class("Fruit/Apple/Golden", settings)
    assert chisquare(_counts(triplets, "negative", labels.index[labels == "Fruit/Apple/Pink"])).pvalue > 0.001


def test_a_coarse_class_of_one_fine_class_has_any_negatives() -> None:
    settings = SampleSettings(positives=2, negatives=200, same_parent_fraction=1)
    labels, triplets = _triplets_of_class("Fruit/Pear/Conference", settings)
    assert chisquare(_counts(triplets, "negative", labels.index[labels != "Fruit/Pear/Conference"])).pvalue > 0.001


@pytest.mark.parametrize("fraction", [0.2, 0.7])
def test_same_parent_fraction_is_the_share_of_such_negatives(fraction: float) -> None:
    frame = create_frame({f"{top}/{leaf}": 5 for top in "abcd" for leaf in "123"})
    triplets = sample_triplets(frame, SampleSettings(positives=4, negatives=100, same_parent_fraction=fraction)).frame
    tops = frame["label"].str[0].to_numpy()
    same_parent = (tops[triplets["query"]] == tops[triplets["negative"]]).mean()
    # A uniform negative is one of 55 images, and 10 of these have the query's parent.
    assert same_parent == pytest.approx(fraction + (1 - fraction) * 10 / 55, abs=0.02)


@pytest.mark.parametrize("method", ["uniform", "relevance", "buffer"])
def test_equal_seeds_give_equal_triplets_and_other_seeds_others(images: pd.DataFrame, method: str) -> None:
    first, second, other = (sample_triplets(images, SampleSettings(method=method, seed=seed)).frame for seed in (3, 3, 4))
    assert first.equals(second)
    assert not first.equals(other)


def test_the_triplets_of_a_split_do_not_depend_on_other_splits() -> None:
    train, test = create_frame(SIZES), create_frame(SIZES, "test", 1)
    expected = sample_triplets(train, SampleSettings()).frame
    together = sample_triplets(pd.concat([train, test], ignore_index=True), SampleSettings())
    assert together.in_split("train").equals(expected)
    assert len(together.in_split("test"))
    assert len(together.in_split("val")) == 0


def test_the_image_of_a_singleton_class_is_only_a_negative() -> None:
    frame = create_frame(SIZES)
    row = frame.index[frame["label"] == "Vegetables/Onion/Red"][0]
    triplets = sample_triplets(frame, SampleSettings(negatives=20)).frame
    assert row not in set(triplets["query"]) | set(triplets["positive"])
    assert row in set(triplets["negative"])


@pytest.mark.parametrize("sizes", [{"a": 5}, {"a": 1, "b": 1}], ids=["one class", "no pair"])
def test_a_train_split_without_a_triplet_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="the train split has no triplet: it needs a class with two images, and another class"):
        sample_triplets(create_frame(sizes), SampleSettings())


@pytest.mark.parametrize(
    "wrong",
    [
        {"positives": 0},
        {"negatives": 0},
        {"same_parent_fraction": 1.1},
        {"positive": 2},
        {"relevance_margin": 0},
        {"max_positive_relevance": 0},
        {"method": "best"},
        {"buffer_size": 1},
        {"count": -1},
        {"file": 5},
        {"same_category_fraction": 2},
    ],
)
def test_settings_out_of_range_or_unknown_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SampleSettings(**wrong)


@pytest.mark.parametrize(("method", "labels"), [("uniform", {"Vegetables/Onion/Red"}), ("relevance", set()), ("buffer", set())])
def test_rows_without_positive_are_never_a_query(images: pd.DataFrame, method: str, labels: set[str]) -> None:
    settings = SampleSettings(method=method, positives=3, negatives=300)
    rows = rows_without_positive(images, settings)
    assert set(images["label"][rows]) == labels
    assert len(rows) == 3 * len(labels)
    assert set(rows) == set(images.index) - set(sample_triplets(images, settings).frame["query"])


def test_a_split_with_one_class_has_no_query() -> None:
    frame = pd.concat([create_frame({"a": 3, "b": 2}), create_frame({"a": 3}, "val")], ignore_index=True)
    assert rows_without_positive(frame, SampleSettings()).tolist() == [5, 6, 7]


@pytest.fixture
def images_with_paths(images: pd.DataFrame) -> pd.DataFrame:
    return images.assign(path=[f"{label}/{row}.jpg" for row, label in enumerate(images["label"])])


def test_a_triplet_file_replaces_the_train_triplets_only(images_with_paths: pd.DataFrame, tmp_path: Path) -> None:
    sampled, file = sample_triplets(images_with_paths, SampleSettings()), tmp_path / "t.txt"
    train = sampled.in_split("train").sample(20, random_state=0)
    write_triplet_file(file, train, images_with_paths["path"].tolist(), "/images")
    triplets = sample_triplets(images_with_paths, SampleSettings(file=str(file)))
    assert triplets.in_split("train").equals(train.reset_index(drop=True))
    for split in ("val", "test"):
        assert triplets.in_split(split).reset_index(drop=True).equals(sampled.in_split(split).reset_index(drop=True))
    assert set(images_with_paths["split"][rows_without_positive(images_with_paths, SampleSettings(file=str(file)))]) == {"val", "test"}


def test_a_line_of_the_file_with_an_image_of_val_is_an_error(images_with_paths: pd.DataFrame, tmp_path: Path) -> None:
    paths, file = images_with_paths["path"].tolist(), tmp_path / "t.txt"
    train, val = (np.flatnonzero(images_with_paths["split"] == split) for split in ("train", "val"))
    write_triplet_file(file, pd.DataFrame([train[:3], [*train[:2], val[0]]], columns=["query", "positive", "negative"]), paths)
    with pytest.raises(DataError, match=rf"t\.txt, line 2: {paths[val[0]]} is not in the train split"):
        sample_triplets(images_with_paths, SampleSettings(file=str(file)))


def test_an_empty_triplet_file_is_refused(images_with_paths: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("")
    with pytest.raises(DataError, match=r"t\.txt has no triplets"):
        sample_triplets(images_with_paths, SampleSettings(file=str(tmp_path / "t.txt")))


def test_settings_depend_on_the_content_of_their_file(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    with pytest.raises(ValidationError, match=r"t\.txt does not exist"):
        SampleSettings(file=str(file))
    file.write_text("a,b,c\n")
    before = SampleSettings(file=str(file))
    assert SampleSettings(**before.model_dump()) == before
    file.write_text("a,c,b\n")
    assert SampleSettings(**before.model_dump()) != before

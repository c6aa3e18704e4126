"""Every triplet is one, drawn as promised: checked by loops, and by chi-square with fixed seeds."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from deeprank.errors import DataError
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy, relevance
from deeprank.triplets.sampling import CHUNK, COLUMNS, SampleSettings, rows_without_positive, sample_triplets
from deeprank.triplets.textfile import write_triplet_file

SIZES = {"Fruit/Apple/Golden": 9, "Fruit/Apple/Pink": 5, "Fruit/Pear/Conference": 7, "Vegetables/Leek/Leek": 3, "Vegetables/Onion/Red": 1}


def frame_of(sizes: dict[str, int], split: str = "train", shuffle: int = 0) -> pd.DataFrame:
    """A catalogue's frame with so many images of each class, in random order."""
    labels = np.random.default_rng(shuffle).permutation([label for label, size in sizes.items() for _ in range(size)])
    return pd.DataFrame({"label": labels.tolist(), "split": split})


@pytest.fixture(scope="module")
def images() -> pd.DataFrame:
    """All classes in every split, the splits' rows mixed."""
    parts = [frame_of(SIZES, split, seed) for seed, split in enumerate(("train", "val", "test"))]
    return pd.concat(parts).sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.mark.parametrize("same_parent_fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 3), (6, 2)])
def test_every_triplet_is_one(images: pd.DataFrame, positives: int, negatives: int, same_parent_fraction: float) -> None:
    settings = SampleSettings(positives=positives, negatives=negatives, same_parent_fraction=same_parent_fraction)
    drawn = sample_triplets(images, settings, "print")
    assert drawn.fingerprint == "print"
    assert drawn.frame.columns.tolist() == COLUMNS
    labels, splits = images["label"], images["split"]
    for t in drawn.frame.itertuples():
        assert t.query != t.positive
        assert labels[t.query] == labels[t.positive] != labels[t.negative]
        assert splits[t.query] == splits[t.positive] == splits[t.negative] == t.split
    partners = {row: int(((labels == labels[row]) & (splits == splits[row])).sum()) - 1 for row in images.index}
    queries = Counter(drawn.frame["query"])
    assert queries == {row: positives * negatives for row, others in partners.items() if others}
    for query, mine in drawn.frame.groupby("query"):
        times = Counter(mine["positive"])
        assert len(times) == min(positives, partners[query])
        assert max(times.values()) - min(times.values()) in (0, negatives)


def test_relevance_columns_are_the_relevance_of_the_pairs(images: pd.DataFrame) -> None:
    settings = SampleSettings(same_parent_fraction=0.5)
    drawn = sample_triplets(images, settings).frame
    codes = encode_hierarchy(images["label"].tolist())
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
def test_negatives_are_uniform_over_all_images_of_other_classes(label: str) -> None:
    frame = frame_of(SIZES)
    drawn = sample_triplets(frame, SampleSettings(positives=4, negatives=200, seed=1)).frame
    mine = drawn[frame["label"].to_numpy()[drawn["query"]] == label]
    assert chisquare(_counts(mine, "negative", frame.index[frame["label"] != label])).pvalue > 0.001


@pytest.mark.parametrize("size", [3, 6, 7])
def test_each_other_image_of_the_class_is_the_positive_equally_often(size: int) -> None:
    frame = frame_of({f"{number:03d}": size for number in range(300)})
    drawn = sample_triplets(frame, SampleSettings(positives=2, negatives=1)).frame
    rank = frame.groupby("label").cumcount().to_numpy()
    pairs = Counter(zip(rank[drawn["query"]].tolist(), rank[drawn["positive"]].tolist(), strict=True))
    assert len(pairs) == size * (size - 1)
    assert chisquare(list(pairs.values())).pvalue > 0.001


def test_the_positives_of_a_query_are_independent_of_each_other() -> None:
    frame = frame_of({f"{number:03d}": 8 for number in range(400)})
    drawn = sample_triplets(frame, SampleSettings(positives=3, negatives=1)).frame
    rank = frame.groupby("label").cumcount().to_numpy()
    mine = drawn[rank[drawn["query"]] == 0]
    sets = Counter(tuple(sorted(rank[positives].tolist())) for _, positives in mine.groupby("query")["positive"])
    assert len(sets) == 7 * 6 * 5 / 6
    assert chisquare(list(sets.values())).pvalue > 0.001


def test_near_negatives_are_uniform_over_the_coarse_class() -> None:
    frame = frame_of(SIZES)
    drawn = sample_triplets(frame, SampleSettings(positives=2, negatives=200, same_parent_fraction=1)).frame
    labels = frame["label"]
    mine = drawn[labels.to_numpy()[drawn["query"]] == "Fruit/Apple/Golden"]
    assert chisquare(_counts(mine, "negative", frame.index[labels == "Fruit/Apple/Pink"])).pvalue > 0.001


def test_a_coarse_class_of_one_fine_class_takes_negatives_from_anywhere() -> None:
    frame = frame_of(SIZES)
    drawn = sample_triplets(frame, SampleSettings(positives=2, negatives=200, same_parent_fraction=1)).frame
    labels = frame["label"]
    mine = drawn[labels.to_numpy()[drawn["query"]] == "Fruit/Pear/Conference"]
    assert chisquare(_counts(mine, "negative", frame.index[labels != "Fruit/Pear/Conference"])).pvalue > 0.001


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_the_near_share_is_the_share_of_near_negatives(share: float) -> None:
    frame = frame_of({f"{top}/{leaf}": 5 for top in "abcd" for leaf in "123"})
    drawn = sample_triplets(frame, SampleSettings(positives=4, negatives=100, same_parent_fraction=share)).frame
    tops = frame["label"].str[0].to_numpy()
    near = (tops[drawn["query"]] == tops[drawn["negative"]]).mean()
    # Of the uniform rest, 10 of the 55 images of other classes lie near by chance.
    assert near == pytest.approx(share + (1 - share) * 10 / 55, abs=0.02)


@pytest.mark.parametrize("method", ["uniform", "relevance", "buffer"])
def test_the_same_seed_draws_the_same_triplets_and_another_seed_others(images: pd.DataFrame, method: str) -> None:
    first, again, other = (sample_triplets(images, SampleSettings(method=method, seed=seed)).frame for seed in (3, 3, 4))
    assert first.equals(again)
    assert not first.equals(other)


def test_another_split_does_not_change_the_triplets_of_this_one() -> None:
    train, test = frame_of(SIZES), frame_of(SIZES, "test", 1)
    alone = sample_triplets(train, SampleSettings()).frame
    together = sample_triplets(pd.concat([train, test], ignore_index=True), SampleSettings())
    assert together.of("train").equals(alone)
    assert len(together.of("test"))
    assert len(together.of("val")) == 0


def test_a_image_alone_in_its_class_is_a_negative_but_no_query() -> None:
    frame = frame_of(SIZES)
    alone = frame.index[frame["label"] == "Vegetables/Onion/Red"][0]
    drawn = sample_triplets(frame, SampleSettings(negatives=20)).frame
    assert alone not in set(drawn["query"]) | set(drawn["positive"])
    assert alone in set(drawn["negative"])


@pytest.mark.parametrize("sizes", [{"a": 5}, {"a": 1, "b": 1}], ids=["one class", "no pair"])
def test_a_train_split_without_a_triplet_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="the train split has no class of two images beside another class"):
        sample_triplets(frame_of(sizes), SampleSettings())


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
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SampleSettings(**wrong)


TREE = {"a/x/1": 3, "a/x/2": 2, "a/y/1": 2, "a/z/1": 1, "b/x/1": 2, "b/y/1": 2, "c/x/1": 1}


def every_triplet(
    labels: list[str], settings: SampleSettings, weight: Callable[[float, int], float], asked: Callable[[int], float]
) -> dict:
    """The probability of each triplet, by loops over the paper's rule: query, then positive and negative, under the relevance_margin."""
    codes, rows = encode_hierarchy(labels), np.arange(len(labels))
    r = np.array([relevance(codes, np.full(len(rows), i), rows, settings.weights) for i in rows], dtype=float)
    found = {}
    for i in rows:
        inside = [j for j in rows if j != i and codes[j, 0] == codes[i, 0]]
        outside = [j for j in rows if codes[j, 0] != codes[i, 0]]
        whole = sum(weight(r[i, j], j) for j in inside)
        chance = {j: settings.same_category_fraction * weight(r[i, j], j) / whole for j in inside} if whole else {}
        chance |= {j: (1 - settings.same_category_fraction) / len(outside) for j in outside}
        mine = {
            (i, p, n): weight(r[i, p], p) * share
            for p in inside
            for n, share in chance.items()
            if r[i, p] - r[i, n] >= settings.relevance_margin - 1e-6
        }
        kept = sum(mine.values())
        found |= {triplet: asked(i) * share / kept for triplet, share in mine.items() if kept and share}
    total = sum(found.values())
    return {triplet: share / total for triplet, share in found.items()}


def agrees(drawn: np.ndarray, expected: dict) -> bool:
    """Whether triplets come as often as expected, by chi-square, and no other ones do."""
    times = Counter(map(tuple, drawn.tolist()))
    assert set(times) <= set(expected)
    observed = np.array([times.get(triplet, 0) for triplet in expected])
    return chisquare(observed, len(drawn) * np.array(list(expected.values()))).pvalue > 0.001


def total_relevance(labels: list[str], weights: RelevanceWeights) -> list[float]:
    codes, rows = encode_hierarchy(labels), np.arange(len(labels))
    return [
        sum(float(relevance(codes, np.array([i]), np.array([j]), weights)[0]) for j in rows if j != i and codes[i, 0] == codes[j, 0])
        for i in rows
    ]


@pytest.mark.parametrize("sizes", [TREE, {"a": 4, "b": 3, "c": 1}, {"a/x": 3, "a/y": 2, "b": 2}], ids=["deep", "flat", "mixed"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"relevance_margin": 0.3, "same_category_fraction": 0.7},
        {"max_positive_relevance": 0.4, "same_category_fraction": 0.0},
        {"weights": {"leaf": 3, "parent": 2, "top": 1}},
    ],
    ids=["default", "relevance_margin", "cap", "weights"],
)
def test_relevance_draws_each_triplet_as_often_as_the_papers_offline_rule(sizes: dict[str, int], settings: dict) -> None:
    frame, chosen = frame_of(sizes), SampleSettings(method="relevance", count=100_000, **settings)
    labels = frame["label"].tolist()
    total = total_relevance(labels, chosen.weights)
    expected = every_triplet(labels, chosen, lambda r, _: min(chosen.max_positive_relevance, r), lambda i: total[i])
    drawn = sample_triplets(frame, chosen).frame
    assert len(drawn) == 100_000
    assert agrees(drawn[["query", "positive", "negative"]].to_numpy(), expected)


@pytest.mark.parametrize("sizes", [TREE, {"a": 4, "b": 3, "c": 1}], ids=["deep", "flat"])
def test_a_buffer_that_holds_everything_draws_each_triplet_as_often_as_the_papers_online_rule(sizes: dict[str, int]) -> None:
    frame, chosen = frame_of(sizes), SampleSettings(method="buffer", count=100_000, same_category_fraction=0.6)
    labels = frame["label"].tolist()
    total = total_relevance(labels, chosen.weights)
    expected = every_triplet(labels, chosen, lambda r, j: min(1, r / total[j]) if r else 0, lambda _: 1)
    assert agrees(sample_triplets(frame, chosen).frame[["query", "positive", "negative"]].to_numpy(), expected)


@pytest.mark.parametrize("method", ["relevance", "buffer"])
@pytest.mark.parametrize("relevance_margin", [0.1, 0.25, 0.5, 0.6])
def test_the_margin_is_always_kept_and_no_triplet_leaves_its_split(images: pd.DataFrame, method: str, relevance_margin: float) -> None:
    drawn = sample_triplets(images, SampleSettings(method=method, relevance_margin=relevance_margin, buffer_size=4)).frame
    assert (drawn["relevance_positive"] - drawn["relevance_negative"]).min() >= relevance_margin
    assert (drawn["query"] != drawn["positive"]).all()
    assert set(drawn["split"]) == {"train", "val", "test"}
    splits = images["split"].to_numpy()
    assert all((splits[drawn[name]] == drawn["split"]).all() for name in ("query", "positive", "negative"))


@pytest.mark.parametrize("method", ["relevance", "buffer"])
def test_count_is_the_number_of_train_triplets_and_the_other_splits_keep_theirs(images: pd.DataFrame, method: str) -> None:
    drawn = sample_triplets(images, SampleSettings(method=method, count=77, positives=2, negatives=3))
    assert len(drawn.of("train")) == 77
    assert len(drawn.of("val")) == (images["split"] == "val").sum() * 6


def test_images_that_stream_by_in_chunks_all_take_part() -> None:
    frame = pd.DataFrame({"label": [f"{i % 3}/{i % 7}" for i in range(2 * CHUNK + 5)], "split": "train"})
    drawn = sample_triplets(frame, SampleSettings(method="buffer", count=20_000, buffer_size=50)).frame
    assert len(drawn) == 20_000
    # Buffers that did not go on after the first chunk would hold 150.
    assert 150 < len(np.unique(drawn["query"])) <= 3 * 150


@pytest.mark.parametrize("method", ["relevance", "buffer"])
def test_where_no_relevances_differ_by_the_margin_training_is_refused(method: str) -> None:
    with pytest.raises(DataError, match=r"no triplet whose relevances differ by 0\.1"):
        sample_triplets(frame_of({"a": 5, "b": 5}), SampleSettings(method=method, same_category_fraction=1))
    with pytest.raises(DataError, match="no triplet whose relevances differ by 2"):
        sample_triplets(frame_of(TREE), SampleSettings(method=method, relevance_margin=2))


@pytest.mark.parametrize(("method", "labels"), [("uniform", {"Vegetables/Onion/Red"}), ("relevance", set()), ("buffer", set())])
def test_images_that_can_be_no_query_are_told(images: pd.DataFrame, method: str, labels: set[str]) -> None:
    settings = SampleSettings(method=method, positives=3, negatives=300)
    alone = rows_without_positive(images, settings)
    assert set(images["label"][alone]) == labels
    assert len(alone) == 3 * len(labels)
    assert set(alone) == set(images.index) - set(sample_triplets(images, settings).frame["query"])


def test_in_a_split_of_one_class_nobody_can_ask() -> None:
    frame = pd.concat([frame_of({"a": 3, "b": 2}), frame_of({"a": 3}, "val")], ignore_index=True)
    assert rows_without_positive(frame, SampleSettings()).tolist() == [5, 6, 7]


@pytest.fixture
def listed(images: pd.DataFrame) -> pd.DataFrame:
    """Images with paths."""
    return images.assign(path=[f"{label}/{row}.jpg" for row, label in enumerate(images["label"])])


def test_train_triplets_come_from_the_file_and_the_others_are_drawn(listed: pd.DataFrame, tmp_path: Path) -> None:
    drawn, file = sample_triplets(listed, SampleSettings()), tmp_path / "t.txt"
    mine = drawn.of("train").sample(20, random_state=0)
    write_triplet_file(file, mine, listed["path"].tolist(), "/images")
    found = sample_triplets(listed, SampleSettings(file=str(file)))
    assert found.of("train").equals(mine.reset_index(drop=True))
    assert all(found.of(split).reset_index(drop=True).equals(drawn.of(split).reset_index(drop=True)) for split in ("val", "test"))
    assert set(listed["split"][rows_without_positive(listed, SampleSettings(file=str(file)))]) == {"val", "test"}


def test_a_line_of_the_file_with_a_image_of_another_split_is_named(listed: pd.DataFrame, tmp_path: Path) -> None:
    paths, file = listed["path"].tolist(), tmp_path / "t.txt"
    train, val = (np.flatnonzero(listed["split"] == split) for split in ("train", "val"))
    write_triplet_file(file, pd.DataFrame([train[:3], [*train[:2], val[0]]], columns=["query", "positive", "negative"]), paths)
    with pytest.raises(DataError, match=rf"t\.txt, line 2: {paths[val[0]]} is not in the train split"):
        sample_triplets(listed, SampleSettings(file=str(file)))


def test_an_empty_file_is_refused(listed: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("")
    with pytest.raises(DataError, match=r"t\.txt holds no triplets"):
        sample_triplets(listed, SampleSettings(file=str(tmp_path / "t.txt")))


def test_settings_know_the_content_of_their_file(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    with pytest.raises(ValidationError, match=r"t\.txt does not exist"):
        SampleSettings(file=str(file))
    file.write_text("a,b,c\n")
    before = SampleSettings(file=str(file))
    assert SampleSettings(**before.model_dump()) == before
    file.write_text("a,c,b\n")
    assert SampleSettings(**before.model_dump()) != before

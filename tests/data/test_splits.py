"""Near-duplicates, groups and splits, each against the slow and obvious way."""

import hashlib

import numpy as np
import pytest

from deeprank.data.splits import SPLITS, join_groups, near_duplicates, split_of

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def _hashes(count: int, seed: int) -> np.ndarray:
    """Random 64-bit hashes, half of them a few flipped bits away from another one."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    for i in range(count // 2, count):
        flips = rng.choice(64, rng.integers(0, 12), replace=False)
        mask = sum(1 << int(bit) for bit in flips)
        hashes[i] = hashes[i - count // 2] ^ np.uint64(mask)
    return hashes


@pytest.mark.parametrize("bits", [0, 1, 4, 11, 32, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_near_duplicates_are_the_pairs_that_all_comparisons_find(bits: int, seed: int) -> None:
    hashes = _hashes(60, seed)
    queries = np.random.default_rng(seed).permutation(60)[:25]
    expected = {
        (int(q), other) for q in queries for other in range(60) if other != q and (int(hashes[q]) ^ int(hashes[other])).bit_count() <= bits
    }
    found = [tuple(pair) for pair in near_duplicates(hashes, queries, bits).tolist()]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_the_highest_bit_of_a_hash_counts_like_any_other() -> None:
    hashes = np.array([0, 1 << 63, (1 << 63) | 1, 2**64 - 1], dtype=np.uint64)
    pairs = near_duplicates(hashes, np.array([0]), 1)
    assert pairs.tolist() == [[0, 1]]


def test_without_queries_there_are_no_pairs() -> None:
    assert near_duplicates(_hashes(4, 0), np.empty(0, dtype=np.int64), 64).shape == (0, 2)


def _groups_by_spreading(groups: list[int], pairs: list[list[int]]) -> list[int]:
    label = list(range(len(groups)))
    edges = [*pairs, *([i, group] for i, group in enumerate(groups))]
    while True:
        before = list(label)
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
        if label == before:
            return label


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_joined_as_by_spreading_the_oldest_member_along_every_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = _groups_by_spreading(list(range(40)), rng.integers(0, 40, (8, 2)).tolist())
    pairs = rng.integers(0, 40, (12, 2))
    assert join_groups(groups, pairs) == _groups_by_spreading(groups, pairs.tolist())


def test_a_group_is_named_by_its_oldest_member() -> None:
    assert join_groups([0, 1, 2, 3], np.array([[3, 2], [1, 3]])) == [0, 1, 1, 1]


def test_without_pairs_groups_stay() -> None:
    assert join_groups([0, 0, 2], np.empty((0, 2), dtype=np.int64)) == [0, 0, 2]


def test_a_split_is_a_function_of_the_identity_alone_and_keeps_its_share() -> None:
    identities = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    splits = [split_of(identity, SHARES) for identity in identities]
    assert splits == [split_of(identity, dict(reversed(SHARES.items()))) for identity in identities]
    for split, share in SHARES.items():
        assert splits.count(split) / len(splits) == pytest.approx(share, abs=0.01)


def test_the_ends_of_the_range_belong_to_the_first_and_the_last_split() -> None:
    assert split_of("0" * 64, SHARES) == SPLITS[0]
    assert split_of("f" * 64, SHARES) == SPLITS[-1]


def test_the_whole_share_takes_all() -> None:
    assert {split_of(end * 64, {"train": 1, "val": 0, "test": 0}) for end in "07f"} == {"train"}


def test_what_a_larger_share_of_train_adds_comes_from_the_others() -> None:
    identities = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2000)]
    small, large = ({"train": share, "val": 0.1, "test": 0.9 - share} for share in (0.5, 0.6))
    train = {i for i in identities if split_of(i, small) == "train"}
    assert train < {i for i in identities if split_of(i, large) == "train"}

"""Near-duplicates, groups and splits, against brute force; and what an ingest makes of duplicates over time."""

import hashlib
import shutil
from pathlib import Path

import lance
import numpy as np
import pytest
from PIL import Image

from deeprank.data.images import sha256, to_stored_image
from deeprank.data.ingest import SplitShares
from deeprank.data.splits import SPLITS, near_duplicate_pairs, oldest_members, split_of
from deeprank.data.synthetic import draw_image
from tests.data.conftest import THIRDS, rows_by_path, run_ingest
from tests.drawing import encoded, pattern, put, put_all

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
def test_near_duplicates_are_those_of_all_comparisons(bits: int, seed: int) -> None:
    hashes = _hashes(60, seed)
    queries = np.random.default_rng(seed).permutation(60)[:25]
    expected = {
        (int(q), other) for q in queries for other in range(60) if other != q and (int(hashes[q]) ^ int(hashes[other])).bit_count() <= bits
    }
    pairs = [tuple(pair) for pair in near_duplicate_pairs(hashes, queries, bits, max_per_query=60).tolist()]
    assert set(pairs) == expected
    assert len(pairs) == len(expected)


def test_the_highest_bit_of_a_hash_counts_like_any_other() -> None:
    hashes = np.array([0, 1 << 63, (1 << 63) | 1, 2**64 - 1], dtype=np.uint64)
    pairs = near_duplicate_pairs(hashes, np.array([0]), 1)
    assert pairs.tolist() == [[0, 1]]


def test_without_queries_there_are_no_pairs() -> None:
    assert near_duplicate_pairs(_hashes(4, 0), np.empty(0, dtype=np.int64), 64).shape == (0, 2)


def test_images_of_one_split_do_not_displace_a_copy() -> None:
    # 40 images of split 2 have the same hash, and the copy in split 0 has one that differs in two bits.
    hashes, splits = np.array([3] + [0] * 40, dtype=np.uint64), np.array([0] + [2] * 40)
    queries = np.arange(1, 41)
    assert not (near_duplicate_pairs(hashes, queries, 4) == 0).any()
    assert near_duplicate_pairs(hashes, queries, 4, splits=splits).tolist() == [[query, 0] for query in queries]


def _groups_by_spreading(count: int, pairs: list[list[int]]) -> list[int]:
    """Return the oldest member of each image's group, by spreading the lower number along every pair until nothing changes."""
    group = list(range(count))
    while True:
        before = list(group)
        for a, b in pairs:
            group[a] = group[b] = min(group[a], group[b])
        if group == before:
            return group


@pytest.mark.parametrize("seed", range(5))
def test_oldest_members_are_those_of_spreading(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = _groups_by_spreading(40, rng.integers(0, 40, (8, 2)).tolist())
    pairs = np.concatenate([np.stack([np.arange(40), groups], axis=1), rng.integers(0, 40, (12, 2))])
    assert oldest_members(40, pairs).tolist() == _groups_by_spreading(40, pairs.tolist())


def test_a_group_is_named_by_its_oldest_member() -> None:
    assert oldest_members(4, np.array([[3, 2], [1, 3]])).tolist() == [0, 1, 1, 1]


def test_without_new_pairs_groups_stay() -> None:
    assert oldest_members(3, np.array([[0, 0], [1, 0], [2, 2]])).tolist() == [0, 0, 2]


def test_without_images_there_are_no_groups() -> None:
    assert oldest_members(0, np.empty((0, 2), dtype=np.int64)).tolist() == []


def test_each_split_has_its_share_whatever_the_order_of_shares() -> None:
    ids = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    splits = [split_of(id, SHARES) for id in ids]
    assert splits == [split_of(id, dict(reversed(SHARES.items()))) for id in ids]
    for split, share in SHARES.items():
        assert splits.count(split) / len(splits) == pytest.approx(share, abs=0.01)


def test_the_first_and_last_hash_are_in_the_first_and_last_split() -> None:
    assert split_of("0" * 64, SHARES) == SPLITS[0]
    assert split_of("f" * 64, SHARES) == SPLITS[-1]


def test_a_share_of_one_takes_all_images() -> None:
    assert {split_of(end * 64, {"train": 1, "val": 0, "test": 0}) for end in "07f"} == {"train"}


def test_a_larger_train_share_only_adds_to_train() -> None:
    ids = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2000)]
    small, large = ({"train": share, "val": 0.1, "test": 0.9 - share} for share in (0.5, 0.6))
    train = {id for id in ids if split_of(id, small) == "train"}
    assert train < {id for id in ids if split_of(id, large) == "train"}


def test_identical_files_are_one_image(folder: Path) -> None:
    shutil.copy(folder / "x" / "0.png", folder / "x" / "again.png")
    shutil.copy(folder / "x" / "0.png", folder / "y" / "elsewhere.png")
    catalogue, report = run_ingest(folder)
    rows = rows_by_path(catalogue)
    assert rows["x/0.png"]["status"] == "ok"
    assert (rows["x/again.png"]["status"], rows["x/again.png"]["reason"]) == ("duplicate", "same image as x/0.png")
    assert rows["y/elsewhere.png"]["status"] == "duplicate"
    assert rows["y/elsewhere.png"]["reason"] == "same image as x/0.png, which is in another class"
    assert report.status_counts == {"ok": 6, "duplicate": 2}
    assert lance.dataset(catalogue.uri).count_rows("image is not null") == 6


def test_a_path_keeps_its_image_when_an_earlier_path_is_added(folder: Path) -> None:
    run_ingest(folder)
    shutil.copy(folder / "y" / "0.png", folder / "a.png")
    put(folder / "a" / "copy.png", (folder / "y" / "0.png").read_bytes())
    rows = rows_by_path(run_ingest(folder)[0])
    assert rows["y/0.png"]["status"] == "ok"
    assert rows["a/copy.png"]["status"] == "duplicate"


def test_a_duplicate_is_ok_when_its_original_is_removed(folder: Path) -> None:
    shutil.copy(folder / "x" / "0.png", folder / "y" / "copy.png")
    old, _ = run_ingest(folder)
    (folder / "x" / "0.png").unlink()
    new, report = run_ingest(folder)
    before, after = rows_by_path(old)["x/0.png"], rows_by_path(new)["y/copy.png"]
    assert (after["status"], after["reason"], after["label"]) == ("ok", "", "y")
    assert (after["id"], after["split"]) == (before["id"], before["split"])
    assert report.status_counts == {"ok": 6}
    new_row = np.flatnonzero(new.frame["path"] == "y/copy.png")
    assert len(new_row) == 1
    assert new.read_jpegs(new_row) == old.read_jpegs(np.flatnonzero(old.frame["path"] == "x/0.png"))


def _duplicates(folder: Path) -> set[str]:
    return {path for path, row in rows_by_path(run_ingest(folder)[0]).items() if row["status"] == "duplicate"}


def test_the_earliest_split_keeps_an_image_in_several_splits(tmp_path: Path) -> None:
    same = encoded(pattern(1), "PNG")
    others = {"train/y/3.png": 3, "test/y/4.png": 4}
    folder = put_all(tmp_path / "f", others | {"test/x/1.png": same, "val/x/1.png": same})
    assert _duplicates(folder) == {"test/x/1.png"}
    put_all(folder, {"train/x/1.png": same})
    assert _duplicates(folder) == {"test/x/1.png", "val/x/1.png"}


def test_near_duplicates_across_own_splits_are_reported(tmp_path: Path) -> None:
    image = pattern(1, (200, 200))
    files = {"train/x/1.png": image, "test/x/2.png": encoded(image, "JPEG", quality=70), "train/y/3.png": 3, "test/y/4.png": 4}
    catalogue, report = run_ingest(put_all(tmp_path / "f", files))
    rows = rows_by_path(catalogue)
    assert rows["train/x/1.png"]["duplicate_group"] == rows["test/x/2.png"]["duplicate_group"]
    assert (rows["train/x/1.png"]["split"], rows["test/x/2.png"]["split"]) == ("train", "test")
    assert report.num_crossing_groups == report.metrics()["groups_across_splits"] == 1
    assert "1 near-duplicate groups are in more than one of the folder's own splits" in report.messages


def test_an_image_keeps_its_split_while_the_catalogue_grows(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {f"{label}/{i}.png": 100 * k + i for k, label in enumerate("xyz") for i in range(8)})
    first = run_ingest(folder, shares=THIRDS)[0].frame.set_index("path")["split"]
    put_all(folder, {f"{label}/new-{i}.png": 1000 + 100 * k + i for k, label in enumerate("xyz") for i in range(8)})
    second = run_ingest(folder, shares=THIRDS)[0].frame.set_index("path")["split"]
    assert set(first) == {"train", "val", "test"}
    assert second[first.index].equals(first)


def _two_images_and_one_near_both() -> tuple[Image.Image, Image.Image, Image.Image, int]:
    """Return two crops whose hashes differ in more bits than each from the hash of their source, the source, and these bits."""
    for product in range(12):
        source = draw_image(product, 0)
        for cut in (8, 12, 16, 20, 24):
            width, height = source.size
            crops = source.crop((cut, 0, width, height - cut)), source.crop((0, cut, width - cut, height))
            first, second, both = (to_stored_image(encoded(image)).phash for image in (*crops, source))
            bits = max((first ^ both).bit_count(), (second ^ both).bit_count())
            if (first ^ second).bit_count() > bits:
                return *crops, source, bits
    raise AssertionError("no such images")


def test_a_joined_group_takes_the_split_of_its_oldest_member(tmp_path: Path) -> None:
    first, second, source, bits = _two_images_and_one_near_both()
    positions = [int(sha256(encoded(image))[:13], 16) / 16**13 for image in (first, second)]
    train_share = sum(positions) / 2
    shares = SplitShares(train=train_share, val=0, test=1 - train_share)
    folder = put_all(tmp_path / "f", {"x/z.png": first})
    settings = {"shares": shares, "near_duplicate_bits": bits}
    run_ingest(folder, **settings)
    put(folder / "x" / "b.png", second)
    before = rows_by_path(run_ingest(folder, **settings)[0])
    assert before["x/z.png"]["split"] != before["x/b.png"]["split"]
    put(folder / "x" / "a.png", source)
    catalogue, report = run_ingest(folder, **settings)
    after = rows_by_path(catalogue)
    assert {row["duplicate_group"] for row in after.values()} == {before["x/z.png"]["id"]}
    assert {row["split"] for row in after.values()} == {before["x/z.png"]["split"]}
    assert report.split_changes == {before["x/b.png"]["split"]: 1}
    assert f"1 images left {before['x/b.png']['split']} because their near-duplicate group was joined to an older one" in report.messages


def test_a_joined_group_stays_joined_at_the_next_ingest(tmp_path: Path) -> None:
    first, second, source, bits = _two_images_and_one_near_both()
    settings = {"near_duplicate_bits": bits, "shares": SplitShares(train=0.4, val=0.3, test=0.3)}
    folder = put_all(tmp_path / "f", {"x/a.png": first, "x/b.png": second})
    assert len({row["duplicate_group"] for row in rows_by_path(run_ingest(folder, **settings)[0]).values()}) == 2
    put(folder / "x" / "c.png", source)
    joined = rows_by_path(run_ingest(folder, **settings)[0])
    assert len({row["duplicate_group"] for row in joined.values()}) == 1
    put(folder / "y" / "unrelated.png", 11)
    later = rows_by_path(run_ingest(folder, **settings)[0])
    for path, row in joined.items():
        assert (later[path]["duplicate_group"], later[path]["split"]) == (row["duplicate_group"], row["split"]), path


def test_near_duplicates_share_group_and_split(folder: Path) -> None:
    image = pattern(0, (300, 300))
    put_all(folder, {f"x/copy-{q}.jpg": encoded(image, "JPEG", quality=q) for q in (40, 60, 80)})
    rows = rows_by_path(run_ingest(folder, shares=THIRDS)[0])
    near = [rows[path] for path in rows if "copy" in path] + [rows["x/0.png"]]
    assert len({(row["duplicate_group"], row["split"]) for row in near}) == 1


def test_zero_bits_group_only_equal_hashes(folder: Path) -> None:
    put(folder / "x" / "copy.jpg", encoded(pattern(0, (300, 300)), "JPEG", quality=20))
    rows = rows_by_path(run_ingest(folder, near_duplicate_bits=0)[0])
    hashes = {row["phash"] for row in rows.values()}
    assert len({row["duplicate_group"] for row in rows.values()}) == len(hashes)

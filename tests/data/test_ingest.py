"""An ingest brings the catalogue up to date with the folder and reads only new and changed files; old versions stay as they are."""

import os
import random
import shutil
from pathlib import Path

import lance
import numpy as np
import pytest
from pydantic import ValidationError

from deeprank.data.catalogue import Catalogue
from deeprank.data.images import to_stored_image
from deeprank.data.ingest import IngestSettings, SplitShares, ingest_folder, require_classes
from deeprank.errors import ConfigError, DataError
from deeprank.triplets.sampling import SampleSettings, sample_triplets
from tests.data.conftest import THIRDS, rows_by_path, run_ingest
from tests.drawing import decoded, encoded, pattern, put, put_all


def test_a_row_describes_the_image(folder: Path) -> None:
    put(folder / "Fruit" / "Apple" / "Golden-Delicious" / "a.jpg", encoded(pattern(50, (600, 400)), "JPEG"))
    catalogue, report = run_ingest(folder)
    row = rows_by_path(catalogue)["Fruit/Apple/Golden-Delicious/a.jpg"]
    stored = to_stored_image((folder / str(row["path"])).read_bytes())
    assert row["label"] == "Fruit/Apple/Golden-Delicious"
    assert (row["width"], row["height"], row["phash"]) == (384, 256, stored.phash)
    assert (row["status"], row["reason"], row["duplicate_group"]) == ("ok", "", row["id"])
    assert row["split"] in ("train", "val", "test")
    frame_row = np.flatnonzero(catalogue.frame["path"] == row["path"])
    assert catalogue.read_jpegs(frame_row) == [stored.jpeg]
    assert (report.num_files, report.num_read, report.status_counts) == (7, 7, {"ok": 7})


def test_status_counts_add_up_to_the_number_of_files(folder: Path, tmp_path: Path) -> None:
    put_all(folder, {"stray.png": 50, "README": b"text", "x/bad.jpg": b"", ".hidden/1.png": 51, "x/.DS_Store": b"\0\0"})
    shutil.copy(folder / "x" / "0.png", folder / "y" / "again.png")
    (folder / "y" / "broken").symlink_to(tmp_path / "nowhere")
    catalogue, report = run_ingest(folder)
    num_files = sum(len(names) for _, _, names in os.walk(folder))
    metrics = report.metrics()
    assert (report.num_skipped, metrics["files.skipped"]) == (2, 2)
    num_files -= report.num_skipped
    assert report.num_files == len(catalogue.state) == num_files == 11
    assert metrics["files.ok"] + metrics["files.duplicate"] + metrics["files.rejected"] == metrics["files.total"] == num_files
    assert rows_by_path(catalogue)["stray.png"]["reason"] == "not in a class folder"


@pytest.mark.parametrize("seed", range(6))
def test_the_catalogue_equals_the_folder_after_random_changes(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    names = [f"{label}/{i}.png" for label in "xyz" for i in range(4)]
    folder = put_all(tmp_path / "f", {name: rng.randrange(8) for name in rng.sample(names, 6)})
    splits: dict[str, str] = {}
    for _ in range(6):
        catalogue, report = run_ingest(folder, shares=SplitShares(train=0.4, val=0.3, test=0.3))
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert sum(report.status_counts.values()) == report.num_files == len(files)
        contents = {file.read_bytes() for file in files}
        usable = [(folder / path).read_bytes() for path in catalogue.frame["path"]]
        assert len(usable) == len(set(usable)) == len(contents)
        assert catalogue.read_jpegs(range(len(usable))) == [to_stored_image(data).jpeg for data in usable]
        for row in catalogue.frame.itertuples():
            assert splits.setdefault(row.id, row.split) == row.split
        for _ in range(rng.randint(1, 4)):
            existing = [name for name in names if (folder / name).exists()]
            name, action = rng.choice(names), rng.random()
            if action < 0.4:
                put(folder / name, rng.randrange(8))
            elif action < 0.7 and len(existing) > 2:
                (folder / rng.choice(existing)).unlink()
            elif (source := rng.choice(existing)) != name:
                put(folder / name, (folder / source).read_bytes())


def test_a_second_ingest_reads_nothing_and_makes_no_version(folder: Path) -> None:
    put(folder / "x" / "bad.jpg", b"")
    first, _ = run_ingest(folder)
    second, report = run_ingest(folder)
    assert (report.num_read, report.num_removed, report.num_files) == (0, 0, 7)
    assert report.status_counts == {"ok": 6, "rejected": 1}
    assert second == first
    assert second.fingerprint == first.fingerprint


def test_a_new_file_makes_a_version_and_old_ones_stay_readable(folder: Path) -> None:
    old, _ = run_ingest(folder)
    frame, fingerprint, images = old.frame, old.fingerprint, old.read_jpegs(range(6))
    put(folder / "x" / "new.png", 60)
    new, report = run_ingest(folder)
    assert (report.num_read, report.num_files, new.version) == (1, 7, old.version + 1)
    assert "x/new.png" in set(new.frame["path"])
    reopened = Catalogue(old.uri, old.version)
    assert reopened.frame.equals(frame)
    assert (reopened.fingerprint, reopened.read_jpegs(range(6))) == (fingerprint, images)
    assert new.fingerprint != fingerprint
    assert lance.dataset(new.uri).count_rows() == 7


def test_a_removed_file_stays_in_the_old_version(folder: Path) -> None:
    old, _ = run_ingest(folder)
    (folder / "x" / "1.png").unlink()
    new, report = run_ingest(folder)
    assert (report.num_removed, report.num_read, report.num_files, report.status_counts) == (1, 0, 5, {"ok": 5})
    assert "x/1.png" not in set(new.state["path"])
    assert len(Catalogue(old.uri, old.version).read_jpegs(range(6))) == 6
    unchanged, report = run_ingest(folder)
    assert (report.num_removed, unchanged.version) == (0, new.version)


def test_a_file_that_is_restored_is_the_same_image(folder: Path) -> None:
    old, _ = run_ingest(folder)
    data = (folder / "x" / "1.png").read_bytes()
    (folder / "x" / "1.png").unlink()
    run_ingest(folder)
    put(folder / "x" / "1.png", data)
    restored, report = run_ingest(folder)
    assert report.num_read == 1
    assert restored.fingerprint == old.fingerprint
    assert restored.read_jpegs(range(6)) == old.read_jpegs(range(6))
    assert lance.dataset(restored.uri).count_rows("image is not null") == 6


def test_a_renamed_file_is_read_again_but_stored_once(folder: Path) -> None:
    old, _ = run_ingest(folder)
    (folder / "x" / "1.png").rename(folder / "y" / "renamed.png")
    new, report = run_ingest(folder)
    before, after = rows_by_path(old)["x/1.png"], rows_by_path(new)["y/renamed.png"]
    assert (report.num_read, report.num_removed, report.status_counts) == (1, 1, {"ok": 6})
    assert (after["id"], after["duplicate_group"], after["split"], after["label"]) == (
        before["id"],
        before["duplicate_group"],
        before["split"],
        "y",
    )
    assert lance.dataset(new.uri).count_rows("image is not null") == 6
    assert [decoded(jpeg).shape for jpeg in new.read_jpegs(range(6))] == [(64, 64, 3)] * 6


def test_a_changed_file_is_another_image(folder: Path) -> None:
    old, _ = run_ingest(folder)
    put(folder / "x" / "1.png", pattern(70, (80, 80)))
    new, report = run_ingest(folder)
    before, after = rows_by_path(old)["x/1.png"], rows_by_path(new)["x/1.png"]
    assert (report.num_read, report.num_removed, report.status_counts) == (1, 0, {"ok": 6})
    assert (after["width"], after["id"] != before["id"]) == (80, True)
    assert old.read_jpegs(range(6))[1] != new.read_jpegs(range(6))[1]


def test_a_new_modification_time_alone_changes_no_fingerprint(folder: Path) -> None:
    old, _ = run_ingest(folder)
    os.utime(folder / "x" / "1.png", ns=(1, 1))
    new, report = run_ingest(folder)
    assert report.num_read == 1
    assert new.fingerprint == old.fingerprint
    assert run_ingest(folder)[1].num_read == 0


def test_the_fingerprint_is_independent_of_location_and_times(folder: Path, tmp_path: Path) -> None:
    original, _ = run_ingest(folder)
    other = tmp_path / "other" / "renamed"
    shutil.copytree(folder, other, copy_function=shutil.copyfile)
    put(other / "x" / "notes.txt", b"a rejected file is not in the fingerprint")
    copy, _ = run_ingest(other)
    assert copy.uri != original.uri
    assert copy.fingerprint == original.fingerprint


def test_other_split_shares_make_another_table(folder: Path) -> None:
    first, _ = run_ingest(folder)
    second, report = run_ingest(folder, shares=THIRDS)
    assert first.uri != second.uri
    assert report.num_read == 6
    assert run_ingest(folder)[1].num_read == 0


def test_an_old_version_gives_the_same_splits_and_triplets(folder: Path) -> None:
    shares = SplitShares(train=1, val=0, test=0)
    old, _ = run_ingest(folder, shares=shares)
    frame, old_triplets = old.frame, sample_triplets(old.frame, SampleSettings(), old.fingerprint)
    put_all(folder, {"x/new.png": 60, "z/1.png": 61})
    (folder / "y" / "0.png").unlink()
    assert not run_ingest(folder, shares=shares)[0].frame.equals(frame)
    reopened, report = run_ingest(folder, shares=shares, version=old.version)
    assert report.num_read == 0
    assert report.status_counts == {"ok": 6}
    assert reopened.frame.equals(frame)
    triplets = sample_triplets(reopened.frame, SampleSettings(), reopened.fingerprint)
    assert triplets.frame.equals(old_triplets.frame)
    assert triplets.fingerprint == old_triplets.fingerprint


def test_an_old_version_needs_no_folder(folder: Path) -> None:
    old, _ = run_ingest(folder)
    frame, images = old.frame, old.read_jpegs(range(6))
    shutil.rmtree(folder)
    reopened, report = run_ingest(folder, version=1)
    assert reopened.frame.equals(frame)
    assert reopened.read_jpegs(range(6)) == images
    assert (report.num_files, report.num_read, report.num_removed) == (6, 0, 0)


def test_an_old_version_with_own_splits_needs_no_folder(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/x/1.png": 1, "train/y/2.png": 2, "test/x/3.png": 3})
    frame = run_ingest(folder)[0].frame
    shutil.rmtree(folder)
    assert run_ingest(folder, version=1)[0].frame.equals(frame)


def test_an_old_version_is_of_the_table_written_last(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/x/1.png": 1, "train/y/2.png": 2, "test/x/3.png": 3})
    first, _ = run_ingest(folder)
    shutil.rmtree(folder / "test")
    second, _ = run_ingest(folder)
    put(folder / "train" / "x" / "4.png", 4)
    third, _ = run_ingest(folder)
    shutil.rmtree(folder)
    assert first.uri != second.uri == third.uri
    assert run_ingest(folder, version=1)[0] == second
    assert run_ingest(folder, version=2)[0] == third
    with pytest.raises(ConfigError, match=rf"7 is not a version of {third.uri}; its versions: \[1, 2\]"):
        run_ingest(folder, version=7)


def test_a_missing_version_is_an_error_with_all_versions(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"ingest\.version: 1 is not a version of .*; its versions: none"):
        run_ingest(folder, version=1)
    run_ingest(folder)
    with pytest.raises(ConfigError, match=r"ingest\.version: 7 is not a version of .*; its versions: \[1\]"):
        run_ingest(folder, version=7)


def test_ingest_folder_puts_all_images_into_the_train_split(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/a/1.png": 1, "test/b/2.png": 2, "bad.txt": b"text"})
    messages: list[str] = []
    catalogue = ingest_folder(folder, str(tmp_path / "catalogues"), messages.append)
    assert catalogue.frame["label"].tolist() == ["test/b", "train/a"]
    assert set(catalogue.frame["split"]) == {"train"}
    assert "1 file rejected: not in a class folder: bad.txt" in messages


def test_ingest_folder_refuses_a_folder_without_an_image(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"x/1.png": b"text"})
    with pytest.raises(DataError, match="no file is a readable image"):
        ingest_folder(folder, str(tmp_path / "catalogues"), lambda _: None)


def test_a_folder_without_a_usable_image_is_refused(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"x/1.png": b"text", "1.png": 1})
    catalogue, report = run_ingest(folder)
    assert report.status_counts == {"rejected": 2}
    with pytest.raises(DataError, match=f"{folder}: no file is a readable image in a class folder"):
        require_classes(catalogue.frame, folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x/1.png": 1, "x/2.png": 2}, "only one class, x"),
        ({"x/1.png": 1, "y/2.png": 2, "z/3.png": 3}, "no class has two images"),
    ],
    ids=["one class", "no pair"],
)
def test_a_folder_without_two_classes_or_a_pair_is_refused(tmp_path: Path, files: dict[str, int | bytes], message: str) -> None:
    folder = put_all(tmp_path / "f", files)
    catalogue, _ = run_ingest(folder)
    with pytest.raises(DataError, match=f"{folder}: {message}"):
        require_classes(catalogue.frame, folder)


def test_one_pair_and_another_class_are_enough(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"x/1.png": 1, "x/2.png": 2, "y/3.png": 3})
    catalogue, report = run_ingest(folder)
    require_classes(catalogue.frame, folder)
    assert report.messages == ["class y has one image: it is never a query or a positive"]


@pytest.mark.parametrize("wrong", [{"train": 0.5}, {"train": 0}, {"train": 0.8, "val": 0.3, "test": -0.1}])
def test_shares_that_do_not_add_up_to_one_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SplitShares(**wrong)


@pytest.mark.parametrize("wrong", [{"near_duplicate_bits": -1}, {"near_duplicate_bits": 33}, {"version": 0}, {"sauce": "x"}])
def test_settings_out_of_range_or_unknown_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IngestSettings(**wrong)


def test_a_table_of_an_older_version_is_refused(folder: Path) -> None:
    catalogue, _ = run_ingest(folder)
    lance.dataset(catalogue.uri).alter_columns({"path": "duplicate_group", "name": "group"})
    for version in (None, lance.dataset(catalogue.uri).version):
        with pytest.raises(DataError, match=r"images-.*lance: an older version of deeprank wrote .* lacks the column duplicate_group"):
            run_ingest(folder, version=version)
    shutil.rmtree(catalogue.uri)
    assert run_ingest(folder)[1].status_counts == {"ok": 6}

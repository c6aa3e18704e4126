"""Whatever lies in a folder becomes a row or an error that says what to do; a second time costs what changed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import lance
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from deeprank.data.catalogue import Catalogue
from deeprank.data.images import canonical, sha256
from deeprank.data.ingest import IngestSettings, SplitShares, ingest_folder, require_classes
from deeprank.errors import ConfigError, DataError
from deeprank.triplets.sampling import SampleSettings, sample_triplets
from tests.data.conftest import rows_of, take
from tests.drawing import decoded, encoded, pattern, put, put_all

THIRDS = SplitShares(train=0.34, val=0.33, test=0.33)
NOBODY = 65534


@pytest.fixture
def forbidding() -> Iterator[Path]:
    """A folder of two classes, looked at by someone whom permissions bind: root, who reads everything, becomes nobody meanwhile."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        folder = put_all(Path(scratch) / "images", {f"{label}/{i}.png": 10 * k + i for k, label in enumerate("xy") for i in range(3)})
        if user == 0:
            for path in [Path(scratch), *Path(scratch).rglob("*")]:
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(user)


def test_a_row_says_what_the_image_is(folder: Path) -> None:
    put(folder / "Fruit" / "Apple" / "Golden-Delicious" / "a.jpg", encoded(pattern(50, (600, 400)), "JPEG"))
    catalogue, report = take(folder)
    row = rows_of(catalogue)["Fruit/Apple/Golden-Delicious/a.jpg"]
    stored = canonical((folder / str(row["path"])).read_bytes())
    assert row["label"] == "Fruit/Apple/Golden-Delicious"
    assert (row["width"], row["height"], row["phash"]) == (384, 256, stored.phash)
    assert (row["status"], row["reason"], row["group"]) == ("ok", "", row["id"])
    assert row["split"] in ("train", "val", "test")
    place = catalogue.frame.index[catalogue.frame["path"] == row["path"]]
    assert catalogue.images(place.to_numpy()) == [stored.jpeg]
    assert (report.found, report.read, report.counts) == (7, 7, {"ok": 7})


def test_no_name_of_a_file_or_class_is_too_strange(tmp_path: Path) -> None:
    names = ["a b.jpg", "v1.2.jpg", "img-3.jpg", "IMG4.JPG", "noextension", "Äpfel 苹果.jpg", "a,b.jpg", "'\".jpg", "x.jpgx", ".jpg"]
    labels = ["two words", "v1.2", "UPPER", "Obst-und-Gemüse", "りんご", "a,b", "deep/er/still.jpg"]
    files = [f"{label}/{name}" for label in labels for name in names[len(label) % 2 :: 2]]
    catalogue, report = take(put_all(tmp_path / "f", {path: i for i, path in enumerate(files)}))
    assert report.counts == {"ok": len(files)}
    assert dict(zip(catalogue.frame["path"], catalogue.frame["label"], strict=True)) == {path: path.rsplit("/", 1)[0] for path in files}


@pytest.mark.parametrize("name", ["my photos", "a#b", "a%20b", "a?b", "[x]", "s3:", "é"])
def test_no_name_of_the_whole_folder_is_too_strange(tmp_path: Path, name: str) -> None:
    folder = put_all(tmp_path / name, {"x/1.png": 1, "y/2.png": 2})
    assert take(folder)[1].read == 2
    catalogue, report = take(folder)
    assert report.read == 0
    assert len(catalogue.images([0, 1])) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"# notes", "not an image"),
        (encoded(pattern(1, (300, 300)), "JPEG")[:3000], "damaged or truncated"),
        (pattern(1, (100, 10)), "too few"),
    ],
    ids=["zero bytes", "no image", "truncated", "too small"],
)
def test_an_unusable_file_is_a_rejected_row_with_its_reason(folder: Path, content: bytes | Image.Image, reason: str) -> None:
    put(folder / "x" / "bad.jpg", content)
    catalogue, report = take(folder)
    row = rows_of(catalogue)["x/bad.jpg"]
    assert row["status"] == "rejected"
    assert reason in str(row["reason"])
    assert report.counts == {"ok": 6, "rejected": 1}
    assert any(remark.startswith("x/bad.jpg: rejected: ") and reason in remark for remark in report.remarks)


def test_what_was_converted_is_used_and_says_so(folder: Path) -> None:
    frames = [pattern(30), pattern(31)]
    put(folder / "x" / "moves.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    put(folder / "x" / "print.jpg", encoded(pattern(32).convert("CMYK"), "JPEG"))
    put(folder / "x" / "deep.png", encoded(Image.fromarray(np.asarray(pattern(33).convert("L"), np.uint16) * 257)))
    put(folder / "x" / "clear.png", encoded(pattern(34).convert("RGBA")))
    rows = rows_of(take(folder)[0])
    words = {"x/moves.gif": "animated", "x/print.jpg": "CMYK", "x/deep.png": "16-bit", "x/clear.png": "transparent"}
    for path, word in words.items():
        assert rows[path]["status"] == "ok"
        assert word in str(rows[path]["reason"])


def test_links_are_followed_and_broken_ones_are_rejected_rows(folder: Path, tmp_path: Path) -> None:
    elsewhere = put_all(tmp_path / "elsewhere", {"1.png": 40, "2.png": 41})
    (folder / "linked").symlink_to(elsewhere)
    (folder / "x" / "link.png").symlink_to(put(tmp_path / "single.png", 42))
    (folder / "x" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "x" / "circle.png").symlink_to(folder / "x" / "circle.png")
    catalogue, report = take(folder)
    rows = rows_of(catalogue)
    assert {rows[path]["status"] for path in ("linked/1.png", "linked/2.png", "x/link.png")} == {"ok"}
    for path in ("x/broken.png", "x/circle.png"):
        assert rows[path]["status"] == "rejected"
        assert str(rows[path]["reason"]).startswith("cannot be read: ")
    assert report.counts == {"ok": 9, "rejected": 2}
    assert take(folder)[1].read == 0


def test_an_unreadable_file_is_a_rejected_row(forbidding: Path) -> None:
    put(forbidding / "x" / "secret.png", 40).chmod(0)
    row = rows_of(take(forbidding)[0])["x/secret.png"]
    assert (row["status"], row["reason"]) == ("rejected", "cannot be read: Permission denied")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, OSError]:
    """By name, the files that cannot be read, and why; for whoever runs the tests."""
    errors: dict[str, OSError] = {}
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name in errors:
            raise errors[path.name]
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return errors


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_could_not_be_read_is_tried_again(folder: Path, failing: dict[str, OSError], error: OSError) -> None:
    failing["1.png"] = error
    catalogue, report = take(folder)
    assert report.counts == {"ok": 4, "rejected": 2}
    assert rows_of(catalogue)["x/1.png"]["reason"] == f"cannot be read: {error.strerror}"
    failing.clear()
    catalogue, report = take(folder)
    assert (report.read, report.counts) == (2, {"ok": 6})
    assert catalogue.images([1]) == [canonical((folder / "x" / "1.png").read_bytes()).jpeg]
    assert take(folder)[1].read == 0


def test_a_file_that_still_cannot_be_read_is_no_news(folder: Path, failing: dict[str, OSError]) -> None:
    failing["1.png"] = PermissionError(13, "Permission denied")
    first, _ = take(folder)
    put(folder / "x" / "new.png", 60)
    second, report = take(folder)
    assert (report.read, report.counts) == (1, {"ok": 5, "rejected": 2})
    assert lance.dataset(second.uri).count_rows() == 7
    again, report = take(folder)
    assert (report.read, again.version) == (0, second.version)
    assert second.version == first.version + 1


def test_a_file_that_cannot_be_read_for_another_reason_says_so(folder: Path, failing: dict[str, OSError]) -> None:
    failing["1.png"] = PermissionError(13, "Permission denied")
    take(folder)
    failing["1.png"] = OSError(5, "Input/output error")
    catalogue, report = take(folder)
    assert report.read == 2
    assert rows_of(catalogue)["x/1.png"]["reason"] == "cannot be read: Input/output error"


def test_a_file_that_was_read_and_is_no_image_is_not_read_again(folder: Path, failing: dict[str, OSError]) -> None:
    put(folder / "x" / "bad.jpg", b"text")
    take(folder)
    failing["bad.jpg"] = OSError(5, "this must not be read")
    assert take(folder)[1].read == 0


def test_an_unreadable_folder_ends_the_run(forbidding: Path) -> None:
    put(forbidding / "secret" / "a.png", 40)
    (forbidding / "secret").chmod(0)
    with pytest.raises(DataError, match="secret cannot be read"):
        take(forbidding)


def test_a_missing_folder_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone does not exist; ingest\.source wants a folder of <class>/<image>"):
        take(tmp_path / "gone")


def test_a_file_instead_of_a_folder_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png is a file"):
        take(put(tmp_path / "a.png", 1))


def test_a_folder_without_a_file_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(DataError, match=r"empty is empty: put images into .*empty/<class>/"):
        take(tmp_path / "empty")
    assert not (tmp_path / "catalogues").exists()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"x/1.png": 1, "x/2.png": 2}, "only one class, x"),
        ({"x/1.png": 1, "y/2.png": 2, "z/3.png": 3}, "no class has two images"),
    ],
    ids=["one class", "no pair"],
)
def test_a_folder_that_cannot_teach_similarity_is_refused_by_name(tmp_path: Path, files: dict[str, int | bytes], complaint: str) -> None:
    folder = put_all(tmp_path / "f", files)
    catalogue, _ = take(folder)
    with pytest.raises(DataError, match=f"{folder}: {complaint}"):
        require_classes(catalogue.frame, folder)


def test_one_pair_beside_another_class_is_enough(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"x/1.png": 1, "x/2.png": 2, "y/3.png": 3})
    catalogue, report = take(folder)
    require_classes(catalogue.frame, folder)
    assert report.remarks == ["class y has one image: it is never a query or a positive"]


def test_the_same_image_twice_is_one_image(folder: Path) -> None:
    shutil.copy(folder / "x" / "0.png", folder / "x" / "again.png")
    shutil.copy(folder / "x" / "0.png", folder / "y" / "elsewhere.png")
    catalogue, report = take(folder)
    rows = rows_of(catalogue)
    assert rows["x/0.png"]["status"] == "ok"
    assert (rows["x/again.png"]["status"], rows["x/again.png"]["reason"]) == ("duplicate", "same image as x/0.png")
    assert rows["y/elsewhere.png"]["status"] == "duplicate"
    assert rows["y/elsewhere.png"]["reason"] == "same image as x/0.png, which is in another class"
    assert report.counts == {"ok": 6, "duplicate": 2}
    assert lance.dataset(catalogue.uri).count_rows("image is not null") == 6


def test_a_path_keeps_its_image_when_an_earlier_name_comes_along(folder: Path) -> None:
    take(folder)
    shutil.copy(folder / "y" / "0.png", folder / "a.png")
    put(folder / "a" / "copy.png", (folder / "y" / "0.png").read_bytes())
    rows = rows_of(take(folder)[0])
    assert rows["y/0.png"]["status"] == "ok"
    assert rows["a/copy.png"]["status"] == "duplicate"


def test_counts_add_up_to_the_files_found_whatever_there_is(folder: Path, tmp_path: Path) -> None:
    put_all(folder, {"stray.png": 50, "README": b"text", "x/bad.jpg": b"", ".hidden/1.png": 51, "x/.DS_Store": b"\0\0"})
    shutil.copy(folder / "x" / "0.png", folder / "y" / "again.png")
    (folder / "y" / "broken").symlink_to(tmp_path / "nowhere")
    catalogue, report = take(folder)
    files = sum(len(names) for _, _, names in os.walk(folder))
    metrics = report.metrics()
    assert report.found == len(catalogue.state) == files == 13
    assert metrics["files.ok"] + metrics["files.duplicate"] + metrics["files.rejected"] == metrics["files.found"] == files
    assert rows_of(catalogue)["stray.png"]["reason"] == "in no class folder"


def test_a_folder_with_train_val_and_test_keeps_its_own_splits(tmp_path: Path) -> None:
    files = {
        f"{split}/{label}/{i}.png": 100 * s + 10 * k + i
        for s, split in enumerate(("train", "val", "test"))
        for k, label in enumerate("xy")
        for i in range(2)
    }
    folder = put_all(tmp_path / "f", files | {"train/loose.png": 901, "beside.png": 902, "extra/x/1.png": 903, "classes.csv": b"x,y"})
    catalogue, report = take(folder)
    assert {(row.path.split("/")[0], row.split) for row in catalogue.frame.itertuples()} == {(s, s) for s in ("train", "val", "test")}
    assert set(catalogue.frame["label"]) == {"x", "y"}
    rows = rows_of(catalogue)
    assert rows["train/loose.png"]["reason"] == "in no class folder"
    assert {rows[path]["reason"] for path in ("beside.png", "extra/x/1.png", "classes.csv")} == {
        "outside train/, val/ and test/, which this folder has"
    }
    assert report.counts == {"ok": 12, "rejected": 4}
    assert report.crossing == 0


def test_train_and_test_alone_are_splits_but_train_alone_is_a_class(tmp_path: Path) -> None:
    both = put_all(tmp_path / "both", {"train/x/1.png": 1, "test/x/2.png": 2})
    alone = put_all(tmp_path / "alone", {"train/1.png": 1, "other/2.png": 2})
    assert take(both)[0].frame["split"].tolist() == ["test", "train"]
    assert take(alone)[0].frame["label"].tolist() == ["other", "train"]


def test_train_and_val_without_test_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no test/ to evaluate on: rename val/ to test/"):
        take(put_all(tmp_path / "f", {"train/x/1.png": 1, "val/x/2.png": 2}))


def test_files_outside_of_classes_are_no_images_of_a_folder_with_splits(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/1.png": 1, "test/2.png": 2})
    for more in ({}, {"test/3.png": 3}):
        catalogue, report = take(put_all(folder, more))
        assert not len(catalogue.frame)
        assert set(report.counts) == {"rejected"}


def test_of_the_same_image_in_several_splits_the_earliest_keeps_it(tmp_path: Path) -> None:
    same = encoded(pattern(1), "PNG")
    others = {"train/y/3.png": 3, "test/y/4.png": 4}
    folder = put_all(tmp_path / "f", others | {"test/x/1.png": same, "val/x/1.png": same})
    assert {path for path, row in rows_of(take(folder)[0]).items() if row["status"] == "duplicate"} == {"test/x/1.png"}
    put_all(folder, {"train/x/1.png": same})
    assert {path for path, row in rows_of(take(folder)[0]).items() if row["status"] == "duplicate"} == {"test/x/1.png", "val/x/1.png"}


def test_near_duplicates_across_own_splits_stay_where_they_are_and_are_reported(tmp_path: Path) -> None:
    picture = pattern(1, (200, 200))
    files = {"train/x/1.png": picture, "test/x/2.png": encoded(picture, "JPEG", quality=70), "train/y/3.png": 3, "test/y/4.png": 4}
    catalogue, report = take(put_all(tmp_path / "f", files))
    rows = rows_of(catalogue)
    assert rows["train/x/1.png"]["group"] == rows["test/x/2.png"]["group"]
    assert (rows["train/x/1.png"]["split"], rows["test/x/2.png"]["split"]) == ("train", "test")
    assert report.crossing == report.metrics()["groups_across_splits"] == 1
    assert "1 groups of near-duplicates lie in more than one of the folder's own splits" in report.remarks


def test_a_second_ingest_reads_nothing_and_makes_no_version(folder: Path) -> None:
    put(folder / "x" / "bad.jpg", b"")
    first, _ = take(folder)
    second, report = take(folder)
    assert (report.read, report.removed, report.found) == (0, 0, 7)
    assert report.counts == {"ok": 6, "rejected": 1}
    assert second == first
    assert second.fingerprint == first.fingerprint


def test_a_new_file_is_one_new_version_and_the_old_one_stays_readable(folder: Path) -> None:
    old, _ = take(folder)
    frame, fingerprint, images = old.frame, old.fingerprint, old.images(range(6))
    put(folder / "x" / "new.png", 60)
    new, report = take(folder)
    assert (report.read, report.found, new.version) == (1, 7, old.version + 1)
    assert "x/new.png" in set(new.frame["path"])
    again = Catalogue(old.uri, old.version)
    assert again.frame.equals(frame)
    assert (again.fingerprint, again.images(range(6))) == (fingerprint, images)
    assert new.fingerprint != fingerprint
    assert lance.dataset(new.uri).count_rows() == 7


def test_a_vanished_file_is_removed_once_and_stays_in_the_old_version(folder: Path) -> None:
    old, _ = take(folder)
    (folder / "x" / "1.png").unlink()
    new, report = take(folder)
    assert (report.removed, report.read, report.found, report.counts) == (1, 0, 5, {"ok": 5})
    assert "x/1.png" not in set(new.state["path"])
    assert len(Catalogue(old.uri, old.version).images(range(6))) == 6
    again, report = take(folder)
    assert (report.removed, again.version) == (0, new.version)


def test_a_file_that_comes_back_is_the_image_it_was(folder: Path) -> None:
    old, _ = take(folder)
    data = (folder / "x" / "1.png").read_bytes()
    (folder / "x" / "1.png").unlink()
    take(folder)
    put(folder / "x" / "1.png", data)
    back, report = take(folder)
    assert report.read == 1
    assert back.fingerprint == old.fingerprint
    assert back.images(range(6)) == old.images(range(6))
    assert lance.dataset(back.uri).count_rows("image is not null") == 6


def test_a_renamed_file_is_read_again_but_stored_once(folder: Path) -> None:
    old, _ = take(folder)
    (folder / "x" / "1.png").rename(folder / "y" / "moved.png")
    new, report = take(folder)
    before, after = rows_of(old)["x/1.png"], rows_of(new)["y/moved.png"]
    assert (report.read, report.removed, report.counts) == (1, 1, {"ok": 6})
    assert (after["id"], after["group"], after["split"], after["label"]) == (before["id"], before["group"], before["split"], "y")
    assert lance.dataset(new.uri).count_rows("image is not null") == 6
    assert [decoded(jpeg).shape for jpeg in new.images(range(6))] == [(64, 64, 3)] * 6


def test_a_changed_file_is_another_image(folder: Path) -> None:
    old, _ = take(folder)
    put(folder / "x" / "1.png", pattern(70, (80, 80)))
    new, report = take(folder)
    before, after = rows_of(old)["x/1.png"], rows_of(new)["x/1.png"]
    assert (report.read, report.removed, report.counts) == (1, 0, {"ok": 6})
    assert (after["width"], after["id"] != before["id"]) == (80, True)
    assert old.images(range(6))[1] != new.images(range(6))[1]


def test_a_file_whose_time_alone_changed_is_read_and_is_no_news(folder: Path) -> None:
    old, _ = take(folder)
    os.utime(folder / "x" / "1.png", ns=(1, 1))
    new, report = take(folder)
    assert report.read == 1
    assert new.fingerprint == old.fingerprint
    assert take(folder)[1].read == 0


def test_a_rejected_file_that_was_mended_is_taken(folder: Path) -> None:
    put(folder / "x" / "bad.png", b"half")
    assert take(folder)[1].counts == {"ok": 6, "rejected": 1}
    put(folder / "x" / "bad.png", 60)
    assert take(folder)[1].counts == {"ok": 7}


def test_a_image_keeps_its_split_while_the_catalogue_grows(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {f"{label}/{i}.png": 100 * k + i for k, label in enumerate("xyz") for i in range(8)})
    first = take(folder, shares=THIRDS)[0].frame.set_index("path")["split"]
    put_all(folder, {f"{label}/new-{i}.png": 1000 + 100 * k + i for k, label in enumerate("xyz") for i in range(8)})
    second = take(folder, shares=THIRDS)[0].frame.set_index("path")["split"]
    assert set(first) == {"train", "val", "test"}
    assert second[first.index].equals(first)


def test_nothing_hangs_on_where_the_folder_lies_or_on_times(folder: Path, tmp_path: Path) -> None:
    here, _ = take(folder)
    other = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(folder, other, copy_function=shutil.copyfile)
    put(other / "x" / "notes.txt", b"rejected files are no part of it")
    there, _ = take(other)
    assert there.uri != here.uri
    assert there.fingerprint == here.fingerprint


def _two_and_one_near_both() -> tuple[Image.Image, Image.Image, Image.Image]:
    """Return two pictures that are no near-duplicates at 24 bits, and one between them that is near both."""
    for seed in range(0, 200, 2):
        first, second = pattern(seed), pattern(seed + 1)
        between = Image.blend(first, second, 0.5)
        hashes = [canonical(encoded(image)).phash for image in (first, second, between)]
        apart, left, right = ((hashes[a] ^ hashes[b]).bit_count() for a, b in ((0, 1), (0, 2), (1, 2)))
        if apart > 24 and max(left, right) <= 24:
            return first, second, between
    raise AssertionError("no such pictures")


def test_a_joined_group_goes_wholly_to_the_side_of_its_oldest_member(tmp_path: Path) -> None:
    first, second, between = _two_and_one_near_both()
    places = [int(sha256(encoded(image))[:13], 16) / 16**13 for image in (first, second)]
    between_them = sum(places) / 2
    shares = SplitShares(train=between_them, val=0, test=1 - between_them)
    folder = put_all(tmp_path / "f", {"x/z.png": first})
    settings = {"shares": shares, "near_duplicate_bits": 24}
    take(folder, **settings)
    put(folder / "x" / "b.png", second)
    before = rows_of(take(folder, **settings)[0])
    assert before["x/z.png"]["split"] != before["x/b.png"]["split"]
    put(folder / "x" / "a.png", between)
    catalogue, report = take(folder, **settings)
    after = rows_of(catalogue)
    assert {row["group"] for row in after.values()} == {before["x/z.png"]["id"]}
    assert {row["split"] for row in after.values()} == {before["x/z.png"]["split"]}
    assert report.moved == {before["x/b.png"]["split"]: 1}
    assert f"1 images left {before['x/b.png']['split']} because their group joined an older one" in report.remarks


def test_near_duplicates_share_group_and_split(folder: Path) -> None:
    picture = pattern(0, (300, 300))
    put_all(folder, {f"x/copy-{q}.jpg": encoded(picture, "JPEG", quality=q) for q in (40, 60, 80)})
    rows = rows_of(take(folder, shares=THIRDS)[0])
    near = [rows[path] for path in rows if "copy" in path] + [rows["x/0.png"]]
    assert len({(row["group"], row["split"]) for row in near}) == 1


def test_zero_bits_make_no_group_of_different_pictures(folder: Path) -> None:
    put(folder / "x" / "copy.jpg", encoded(pattern(0, (300, 300)), "JPEG", quality=20))
    rows = rows_of(take(folder, near_duplicate_bits=0)[0])
    hashes = {row["phash"] for row in rows.values()}
    assert len({row["group"] for row in rows.values()}) == len(hashes)


def test_another_way_of_splitting_starts_a_history_of_its_own(folder: Path) -> None:
    first, _ = take(folder)
    second, report = take(folder, shares=THIRDS)
    assert first.uri != second.uri
    assert report.read == 6
    assert take(folder)[1].read == 0


def test_an_old_version_gives_the_old_splits_and_triplets_again(folder: Path) -> None:
    shares = SplitShares(train=1, val=0, test=0)
    old, _ = take(folder, shares=shares)
    frame, drawn = old.frame, sample_triplets(old.frame, SampleSettings(), old.fingerprint)
    put_all(folder, {"x/new.png": 60, "z/1.png": 61})
    (folder / "y" / "0.png").unlink()
    assert not take(folder, shares=shares)[0].frame.equals(frame)
    again, report = take(folder, shares=shares, version=old.version)
    assert report.read == 0
    assert report.counts == {"ok": 6}
    assert again.frame.equals(frame)
    triplets = sample_triplets(again.frame, SampleSettings(), again.fingerprint)
    assert triplets.frame.equals(drawn.frame)
    assert triplets.fingerprint == drawn.fingerprint


def test_an_old_version_needs_no_folder(folder: Path) -> None:
    old, _ = take(folder)
    frame, images = old.frame, old.images(range(6))
    shutil.rmtree(folder)
    again, report = take(folder, version=1)
    assert again.frame.equals(frame)
    assert again.images(range(6)) == images
    assert (report.found, report.read, report.removed) == (6, 0, 0)


def test_an_old_version_of_a_folder_with_its_own_splits_needs_no_folder_either(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/x/1.png": 1, "train/y/2.png": 2, "test/x/3.png": 3})
    frame = take(folder)[0].frame
    shutil.rmtree(folder)
    assert take(folder, version=1)[0].frame.equals(frame)


def test_an_old_version_is_one_of_the_history_written_last(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/x/1.png": 1, "train/y/2.png": 2, "test/x/3.png": 3})
    first, _ = take(folder)
    shutil.rmtree(folder / "test")
    second, _ = take(folder)
    put(folder / "train" / "x" / "4.png", 4)
    third, _ = take(folder)
    shutil.rmtree(folder)
    assert first.uri != second.uri == third.uri
    assert take(folder, version=1)[0] == second
    assert take(folder, version=2)[0] == third
    with pytest.raises(ConfigError, match=rf"7 is not a version of {third.uri}; there are \[1, 2\]"):
        take(folder, version=7)


def test_a_version_that_is_not_there_names_those_that_are(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"ingest\.version: 1 is not a version of .*; there are none"):
        take(folder, version=1)
    take(folder)
    with pytest.raises(ConfigError, match=r"ingest\.version: 7 is not a version of .*; there are \[1\]"):
        take(folder, version=7)


def test_of_many_files_each_row_has_its_own_image(tmp_path: Path) -> None:
    colors = {f"{'xy'[i % 2]}/{i:03d}.png": (i % 256, 255 - i % 256, 128 if i < 256 else 0) for i in range(300)}
    folder = put_all(tmp_path / "f", {path: Image.new("RGB", (16, 16), color) for path, color in colors.items()})
    shutil.copy(folder / "x" / "000.png", folder / "x" / "000-again.png")
    catalogue, report = take(folder)
    assert report.counts == {"ok": 300, "duplicate": 1}
    kept = catalogue.frame["path"].tolist()
    for path, jpeg in zip(kept, catalogue.images(range(300)), strict=True):
        color = colors[path.replace("-again", "")]
        assert np.allclose(decoded(jpeg).mean((0, 1)), color, atol=3), path


def test_a_whole_folder_is_one_split_and_train_and_test_are_class_names(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/a/1.png": 1, "test/b/2.png": 2, "bad.txt": b"text"})
    said: list[str] = []
    catalogue = ingest_folder(folder, str(tmp_path / "catalogues"), said.append)
    assert catalogue.frame["label"].tolist() == ["test/b", "train/a"]
    assert set(catalogue.frame["split"]) == {"train"}
    assert "bad.txt: rejected: in no class folder" in said


@pytest.mark.parametrize("wrong", [{"train": 0.5}, {"train": 0}, {"train": 0.8, "val": 0.3, "test": -0.1}])
def test_shares_must_add_up_to_one(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SplitShares(**wrong)


@pytest.mark.parametrize("wrong", [{"near_duplicate_bits": -1}, {"near_duplicate_bits": 33}, {"version": 0}, {"sauce": "x"}])
def test_settings_out_of_range_or_unknown_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IngestSettings(**wrong)

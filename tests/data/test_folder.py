"""Every file of a folder becomes a catalogue row, or an error that says what to do."""

import os
import shutil
from pathlib import Path

import lance
import numpy as np
import pytest
from PIL import Image

from deeprank.data.images import to_stored_image
from deeprank.errors import DataError
from tests.data.conftest import ODD_FILES, odd_file, rows_by_path, run_ingest
from tests.drawing import decoded, encoded, pattern, put, put_all


def test_any_file_or_class_name_is_ingested(tmp_path: Path) -> None:
    names = ["a b.jpg", "v1.2.jpg", "img-3.jpg", "IMG4.JPG", "noextension", "Äpfel 苹果.jpg", "a,b.jpg", "'\".jpg", "x.jpgx", "jpg"]
    labels = ["two words", "v1.2", "UPPER", "Obst-und-Gemüse", "りんご", "a,b", "deep/er/still.jpg"]
    files = [f"{label}/{name}" for label in labels for name in names[len(label) % 2 :: 2]]
    catalogue, report = run_ingest(put_all(tmp_path / "f", {path: i for i, path in enumerate(files)}))
    assert report.status_counts == {"ok": len(files)}
    assert dict(zip(catalogue.frame["path"], catalogue.frame["label"], strict=True)) == {path: path.rsplit("/", 1)[0] for path in files}


@pytest.mark.parametrize("name", ["my photos", "a#b", "a%20b", "a?b", "[x]", "s3:", "é"])
def test_any_folder_name_is_ingested(tmp_path: Path, name: str) -> None:
    folder = put_all(tmp_path / name, {"x/1.png": 1, "y/2.png": 2})
    assert run_ingest(folder)[1].num_read == 2
    catalogue, report = run_ingest(folder)
    assert report.num_read == 0
    assert len(catalogue.read_jpegs([0, 1])) == 2


def test_a_file_name_that_is_not_utf8_is_a_row(folder: Path) -> None:
    shutil.copy(os.fsencode(folder / "x" / "0.png"), os.fsencode(folder / "x") + b"/caf\xe9.png")
    shutil.copy(os.fsencode(folder / "y" / "0.png"), os.fsencode(folder / "y") + b"/caf\xe9.png")
    catalogue, report = run_ingest(folder)
    assert sum(report.status_counts.values()) == report.num_files == 8
    assert report.status_counts == {"ok": 6, "duplicate": 2}
    assert "x/caf\\xe9.png" in set(catalogue.state["path"])
    assert run_ingest(folder)[1].num_read == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"# notes", "not an image"),
        (encoded(pattern(1, (300, 300)), "JPEG")[:3000], "damaged or truncated"),
        (pattern(1, (100, 10)), "its short side needs at least 16"),
    ],
    ids=["zero bytes", "no image", "truncated", "too small"],
)
def test_an_unusable_file_is_rejected_with_a_reason(folder: Path, content: bytes | Image.Image, reason: str) -> None:
    put(folder / "x" / "bad.jpg", content)
    catalogue, report = run_ingest(folder)
    row = rows_by_path(catalogue)["x/bad.jpg"]
    assert row["status"] == "rejected"
    assert reason in str(row["reason"])
    assert report.status_counts == {"ok": 6, "rejected": 1}
    assert any(message.startswith("1 file rejected: ") and reason in message and "x/bad.jpg" in message for message in report.messages)


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_does_not_end_an_ingest(folder: Path, name: str) -> None:
    put(folder / "x" / name, odd_file(name))
    catalogue, report = run_ingest(folder)
    assert report.num_files == sum(report.status_counts.values()) == 7
    assert rows_by_path(catalogue)[f"x/{name}"]["status"] in ("ok", "rejected")


def test_a_converted_image_is_ok_with_the_conversion_as_reason(folder: Path) -> None:
    frames = [pattern(30), pattern(31)]
    put(folder / "x" / "moves.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    put(folder / "x" / "print.jpg", encoded(pattern(32).convert("CMYK"), "JPEG"))
    put(folder / "x" / "deep.png", encoded(Image.fromarray(np.asarray(pattern(33).convert("L"), np.uint16) * 257)))
    put(folder / "x" / "clear.png", encoded(pattern(34).convert("RGBA")))
    rows = rows_by_path(run_ingest(folder)[0])
    words = {"x/moves.gif": "animated", "x/print.jpg": "CMYK", "x/deep.png": "16-bit", "x/clear.png": "transparent"}
    for path, word in words.items():
        assert rows[path]["status"] == "ok"
        assert word in str(rows[path]["reason"])


def test_links_are_followed_and_broken_links_are_rejected(folder: Path, tmp_path: Path) -> None:
    target = put_all(tmp_path / "elsewhere", {"1.png": 40, "2.png": 41})
    (folder / "linked").symlink_to(target)
    (folder / "x" / "link.png").symlink_to(put(tmp_path / "single.png", 42))
    (folder / "x" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "x" / "circle.png").symlink_to(folder / "x" / "circle.png")
    catalogue, report = run_ingest(folder)
    rows = rows_by_path(catalogue)
    assert {rows[path]["status"] for path in ("linked/1.png", "linked/2.png", "x/link.png")} == {"ok"}
    for path in ("x/broken.png", "x/circle.png"):
        assert rows[path]["status"] == "rejected"
        assert str(rows[path]["reason"]).startswith("cannot be read: ")
    assert report.status_counts == {"ok": 9, "rejected": 2}
    assert run_ingest(folder)[1].num_read == 0


def test_a_link_to_its_own_folder_is_followed_once(folder: Path) -> None:
    (folder / "x" / "self").symlink_to(folder / "x")
    assert run_ingest(folder)[1].num_files <= 10


def test_a_file_without_read_permission_is_rejected(folder_of_nobody: Path) -> None:
    put(folder_of_nobody / "x" / "secret.png", 40).chmod(0)
    row = rows_by_path(run_ingest(folder_of_nobody)[0])["x/secret.png"]
    assert (row["status"], row["reason"]) == ("rejected", "cannot be read: Permission denied")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_an_unreadable_file_is_read_at_the_next_ingest(folder: Path, read_errors: dict[str, OSError], error: OSError) -> None:
    read_errors["1.png"] = error
    catalogue, report = run_ingest(folder)
    assert report.status_counts == {"ok": 4, "rejected": 2}
    assert rows_by_path(catalogue)["x/1.png"]["reason"] == f"cannot be read: {error.strerror}"
    read_errors.clear()
    catalogue, report = run_ingest(folder)
    assert (report.num_read, report.status_counts) == (2, {"ok": 6})
    assert catalogue.read_jpegs([1]) == [to_stored_image((folder / "x" / "1.png").read_bytes()).jpeg]
    assert run_ingest(folder)[1].num_read == 0


def test_a_still_unreadable_file_makes_no_new_row(folder: Path, read_errors: dict[str, OSError]) -> None:
    read_errors["1.png"] = PermissionError(13, "Permission denied")
    first, _ = run_ingest(folder)
    put(folder / "x" / "new.png", 60)
    second, report = run_ingest(folder)
    assert (report.num_read, report.status_counts) == (1, {"ok": 5, "rejected": 2})
    assert lance.dataset(second.uri).count_rows() == 7
    third, report = run_ingest(folder)
    assert (report.num_read, third.version) == (0, second.version)
    assert second.version == first.version + 1


def test_a_new_read_error_replaces_the_reason(folder: Path, read_errors: dict[str, OSError]) -> None:
    read_errors["1.png"] = PermissionError(13, "Permission denied")
    run_ingest(folder)
    read_errors["1.png"] = OSError(5, "Input/output error")
    catalogue, report = run_ingest(folder)
    assert report.num_read == 2
    assert rows_by_path(catalogue)["x/1.png"]["reason"] == "cannot be read: Input/output error"


def test_a_rejected_file_that_was_read_is_not_read_again(folder: Path, read_errors: dict[str, OSError]) -> None:
    put(folder / "x" / "bad.jpg", b"text")
    run_ingest(folder)
    read_errors["bad.jpg"] = OSError(5, "this must not be read")
    assert run_ingest(folder)[1].num_read == 0


def test_an_unreadable_folder_is_skipped_with_a_message(folder_of_nobody: Path) -> None:
    put(folder_of_nobody / "secret" / "a.png", 40)
    (folder_of_nobody / "secret").chmod(0)
    _, report = run_ingest(folder_of_nobody)
    assert (report.status_counts, report.num_skipped) == ({"ok": 6}, 1)
    assert report.messages == ["1 folder skipped because it cannot be read: secret/ (Permission denied)"]


def test_an_unreadable_source_folder_is_an_error(folder_of_nobody: Path) -> None:
    folder_of_nobody.chmod(0)
    with pytest.raises(DataError, match="images cannot be read"):
        run_ingest(folder_of_nobody)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone does not exist; ingest\.source must be a folder of <class>/<image>"):
        run_ingest(tmp_path / "gone")


def test_a_file_instead_of_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png is a file"):
        run_ingest(put(tmp_path / "a.png", 1))


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(DataError, match=r"empty is empty: put images into .*empty/<class>/"):
        run_ingest(tmp_path / "empty")
    assert not (tmp_path / "catalogues").exists()


def test_files_outside_of_class_folders_are_rejected(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/1.png": 1, "test/2.png": 2})
    for new_files in ({}, {"test/3.png": 3}):
        catalogue, report = run_ingest(put_all(folder, new_files))
        assert not len(catalogue.frame)
        assert set(report.status_counts) == {"rejected"}


def test_each_of_many_rows_has_its_own_image(tmp_path: Path) -> None:
    colors = {f"{'xy'[i % 2]}/{i:03d}.png": (i % 256, 255 - i % 256, 128 if i < 256 else 0) for i in range(300)}
    folder = put_all(tmp_path / "f", {path: Image.new("RGB", (16, 16), color) for path, color in colors.items()})
    shutil.copy(folder / "x" / "000.png", folder / "x" / "000-again.png")
    catalogue, report = run_ingest(folder)
    assert report.status_counts == {"ok": 300, "duplicate": 1}
    for path, jpeg in zip(catalogue.frame["path"], catalogue.read_jpegs(range(300)), strict=True):
        color = colors[path.replace("-again", "")]
        assert np.allclose(decoded(jpeg).mean((0, 1)), color, atol=3), path


def test_a_repaired_file_is_ok_at_the_next_ingest(folder: Path) -> None:
    put(folder / "x" / "bad.png", b"half")
    assert run_ingest(folder)[1].status_counts == {"ok": 6, "rejected": 1}
    put(folder / "x" / "bad.png", 60)
    assert run_ingest(folder)[1].status_counts == {"ok": 7}

"""A folder lists its own files, not those of other programs, and each file once."""

import shutil
from pathlib import Path

import pytest

from deeprank.data.listing import EXCLUDED_REASON, SYSTEM_REASON, list_files
from deeprank.errors import DataError
from tests.data.conftest import rows_by_path, run_ingest
from tests.drawing import put, put_all

SYSTEM_FILES = [
    ".ipynb_checkpoints/a.jpg", "@eaDir/cup/a.jpg", ".Trash-1000/files/a.jpg", "#recycle/a.jpg", "$RECYCLE.BIN/S-1-5-21/a.jpg",
    "x/.thumbnails/a.jpg", "lost+found/a.jpg", "System Volume Information/a.jpg", "__MACOSX/x/._0.jpg", ".DS_Store", "x/.DS_Store",
    "x/Thumbs.db", "x/desktop.ini", "x/._0.jpg",
]  # fmt: skip


def test_files_of_other_programs_are_counted_in_one_line(folder: Path) -> None:
    put_all(folder, dict.fromkeys(SYSTEM_FILES, 40))
    catalogue, report = run_ingest(folder)
    assert report.status_counts == {"ok": 6}
    assert set(catalogue.frame["label"]) == {"x", "y"}
    assert (report.num_skipped, report.num_files) == (14, 6)
    (message,) = report.messages
    assert message.startswith("5 files and 9 folders of other programs skipped: #recycle/, $RECYCLE.BIN/")
    assert message.endswith("and 4 more")


@pytest.mark.parametrize(
    ("pattern", "skipped"),
    [
        ("raw", ["raw/", "x/raw/"]),
        ("raw/", ["raw/", "x/raw/"]),
        ("x/raw", ["x/raw/"]),
        ("*.txt", ["notes.txt", "x/raw/b.txt"]),
        ("x/?.png", ["x/0.png", "x/1.png", "x/2.png"]),
        ("nothing", []),
    ],
)
def test_excluded_paths_and_folder_names_are_skipped(folder: Path, pattern: str, skipped: list[str]) -> None:
    put_all(folder, {"raw/a.png": 40, "x/raw/b.txt": b"text", "notes.txt": b"text"})
    assert list_files(folder, [pattern]).skipped == dict.fromkeys(skipped, EXCLUDED_REASON)


def test_a_folder_of_skipped_files_only_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is empty: .* \(1 files and folders in it are skipped, for example \.cache/\)"):
        list_files(put_all(tmp_path / "f", {".cache/1.png": 1}))


def test_a_link_to_a_class_does_not_rename_it(folder: Path) -> None:
    (folder / "best-sellers").symlink_to("x")
    (folder / "a.png").symlink_to("y/0.png")
    catalogue, report = run_ingest(folder)
    assert set(catalogue.frame["label"]) == {"x", "y"}
    assert report.status_counts == {"ok": 6}
    assert report.messages == [
        "2 links not followed: a.png (link to y/0.png, which is listed), best-sellers/ (link to x/, which is listed)"
    ]


def test_a_link_to_a_parent_folder_is_not_followed(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "photos", {"x/1.png": 1, "y/2.png": 2})
    put(tmp_path / "private" / "diary" / "1.png", 3)
    (folder / "up").symlink_to("..")
    (folder / "x" / "self").symlink_to(folder)
    listing = list_files(folder)
    assert list(listing.files) == ["x/1.png", "y/2.png"]
    assert set(listing.skipped) == {"up/", "x/self/"}


def test_a_link_to_a_folder_outside_is_followed_once(folder: Path, tmp_path: Path) -> None:
    put_all(tmp_path / "elsewhere", {"1.png": 40, "deep/2.png": 41})
    for name in ("a", "b"):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    listing = list_files(folder)
    assert {path for path in listing.files if path[0] not in "xy"} == {"a/1.png", "a/deep/2.png"}
    assert listing.skipped["b/"] == "link to a/, which is listed"
    assert "a/back/" in listing.skipped


def test_a_split_may_be_a_link_to_another_split(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/x/1.png": 1, "train/y/2.png": 2, "test/x/3.png": 3})
    (folder / "Val").symlink_to("test")
    catalogue, report = run_ingest(folder)
    assert catalogue.frame["split"].value_counts().to_dict() == {"train": 2, "test": 1}
    assert report.messages[0] == "1 link not followed: Val/ (link to test/, which is listed)"


def test_splits_may_be_links_to_images_in_one_place(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"all/x/1.png": 1, "all/y/2.png": 2, "all/x/3.png": 3, "all/y/4.png": 4})
    for split, numbers in {"train": ("x/1", "y/2"), "test": ("x/3",)}.items():
        for number in numbers:
            link = folder / split / f"{number}.png"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder / "all" / f"{number}.png")
    (folder / "test" / "y").symlink_to(folder / "all" / "y")
    frame = run_ingest(folder)[0].frame
    assert frame["path"].tolist() == ["test/x/3.png", "test/y/4.png", "train/x/1.png", "train/y/2.png"]


def test_a_file_that_vanishes_during_the_listing_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    lstat = os.lstat

    def vanish(file: str, **options: int) -> os.stat_result:
        if file.endswith("x/1.png"):
            Path(file).unlink(missing_ok=True)
        return lstat(file, **options)

    monkeypatch.setattr("deeprank.data.listing.os.lstat", vanish)
    catalogue, report = run_ingest(folder)
    assert report.status_counts == {"ok": 5, "rejected": 1}
    assert rows_by_path(catalogue)["x/1.png"]["reason"] == "cannot be read: No such file or directory"


def test_system_files_have_their_reason(folder: Path) -> None:
    put(folder / "x" / "Thumbs.db", b"x")
    assert list_files(folder).skipped == {"x/Thumbs.db": SYSTEM_REASON}
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="does not exist"):
        list_files(folder)

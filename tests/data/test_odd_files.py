"""One odd file never ends an ingest, and every change is found."""

import os
import socket
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest

from deeprank.data.images import NOT_AN_IMAGE, sha256, to_stored_image
from tests.data.conftest import rows_by_path, run_ingest
from tests.drawing import encoded, pattern, put, put_all


@pytest.mark.parametrize(("time_ns", "stored"), [(-(10**18), 0), (2**63 + 10**18, 2**63 - 1)], ids=["before 1970", "after 2262"])
def test_odd_file_times_are_stored_in_range(folder: Path, monkeypatch: pytest.MonkeyPatch, time_ns: int, stored: int) -> None:
    lstat = os.lstat

    def odd_lstat(file: str, **options: int) -> object:
        status = lstat(file, **options)
        if not str(file).endswith("x/0.png"):
            return status
        fields = {name: getattr(status, name) for name in ("st_size", "st_mode", "st_mtime_ns", "st_ctime_ns")}
        return SimpleNamespace(**fields | {"st_mtime_ns": time_ns})

    monkeypatch.setattr("deeprank.data.listing.os.lstat", odd_lstat)
    catalogue, report = run_ingest(folder)
    assert report.status_counts == {"ok": 6}
    assert rows_by_path(catalogue)["x/0.png"]["mtime_ns"] == stored
    assert run_ingest(folder)[1].num_read == 0


def test_a_change_that_keeps_size_and_time_is_read(tmp_path: Path) -> None:
    folder = put_all(
        tmp_path / "f", {f"{label}/{i}.bmp": encoded(pattern(10 * k + i), "BMP") for k, label in enumerate("xy") for i in range(2)}
    )
    run_ingest(folder)
    file = folder / "x" / "0.bmp"
    status = file.stat()
    put(file, encoded(pattern(77), "BMP"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    catalogue, report = run_ingest(folder)
    assert report.num_read == 1
    assert rows_by_path(catalogue)["x/0.bmp"]["id"] == sha256(file.read_bytes())


def test_swapped_files_of_one_size_are_read(folder: Path) -> None:
    for name in "01":
        put(folder / "x" / f"{name}.bmp", encoded(pattern(50 + int(name)), "BMP"))
        os.utime(folder / "x" / f"{name}.bmp", ns=(10**18, 10**18))
    old, _ = run_ingest(folder)
    (folder / "x" / "0.bmp").rename(folder / "x" / "t.bmp")
    (folder / "x" / "1.bmp").rename(folder / "x" / "0.bmp")
    (folder / "x" / "t.bmp").rename(folder / "x" / "1.bmp")
    new, report = run_ingest(folder)
    assert report.num_read == 2
    assert rows_by_path(new)["x/0.bmp"]["id"] == rows_by_path(old)["x/1.bmp"]["id"]


@pytest.mark.parametrize("head", [b"\0" * 12, b"\0\0\0\x14ftypqt  ", b"\0\0\0\x18ftypmp42"], ids=["zeros", "mov", "mp4"])
def test_a_film_is_rejected_from_its_head(folder: Path, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    film = put(folder / "x" / "film.mp4", head)
    os.truncate(film, 2**40)
    monkeypatch.setattr("deeprank.data.folder.sha256", lambda data: "a" * 64 if len(data) > 10**6 else sha256(data))
    catalogue, report = run_ingest(folder)
    assert rows_by_path(catalogue)["x/film.mp4"]["reason"] == NOT_AN_IMAGE
    assert report.status_counts == {"ok": 6, "rejected": 1}
    assert run_ingest(folder)[1].num_read == 0


def test_an_image_file_above_the_limit_is_rejected_unread(folder: Path) -> None:
    image = put(folder / "x" / "huge.png", 40)
    os.truncate(image, 2**40)
    catalogue, _ = run_ingest(folder)
    assert rows_by_path(catalogue)["x/huge.png"]["reason"] == "the file is larger than 256 MiB"


def test_pipes_and_sockets_are_rejected(folder: Path) -> None:
    os.mkfifo(folder / "x" / "pipe.jpg")
    os.mkfifo(folder / "a.jpg")
    (folder / "y" / "link.jpg").symlink_to(folder / "x" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        # The path of a socket is limited to 108 bytes.
        server.bind(f"/proc/self/fd/{(directory := os.open(folder / 'y', os.O_RDONLY))}/s.jpg")
        os.close(directory)
        catalogue, report = run_ingest(folder)
    assert report.status_counts["ok"] == 6
    for path in ("x/pipe.jpg", "y/s.jpg"):
        assert rows_by_path(catalogue)[path]["reason"] == "not a file but a pipe, socket or device"


def test_unicode_forms_of_a_name_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käse") for form in ("NFC", "NFD"))
    folder = put_all(tmp_path / "f", {f"{composed}/1.png": 1, f"{decomposed}/2.png": 2, "x/3.png": 3})
    catalogue, report = run_ingest(folder)
    assert set(catalogue.frame["label"]) == {composed, "x"}
    assert f"{decomposed}/2.png" in set(catalogue.frame["path"])
    assert report.status_counts == {"ok": 3}
    assert run_ingest(folder)[1].num_read == 0


def test_an_error_that_no_one_expects_rejects_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(data: bytes) -> object:
        if data == (folder / "x" / "1.png").read_bytes():
            raise MemoryError("no memory")
        return to_stored_image(data)

    monkeypatch.setattr("deeprank.data.folder.to_stored_image", convert)
    catalogue, report = run_ingest(folder)
    assert report.status_counts == {"ok": 5, "rejected": 1}
    assert rows_by_path(catalogue)["x/1.png"]["reason"] == "damaged or truncated image: MemoryError: no memory"

"""Images in an object store are ingested as those of a folder are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deeprank.data import object_store
from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestReport, IngestSettings, ingest
from deeprank.data.object_listing import list_object_files
from deeprank.data.object_store import set_storage_options
from deeprank.errors import DataError
from tests.drawing import encoded, pattern, put_all
from tests.object_store import ObjectStore, running_object_store

FILES = {f"{label}/{number}.png": 10 * k + number for k, label in enumerate(["Fruit/Apple", "Fruit/Pear", "Onion"]) for number in range(4)}
SKIPPED = {"Fruit/.DS_Store": b"x", "Onion/@eaDir/1.png": b"x", "drafts/1.png": 99}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An S3 server whose options are set."""
    monkeypatch.setattr(object_store, "_options", {})
    with running_object_store() as server:
        set_storage_options(server.uri, server.options)
        yield server


def upload(server: ObjectStore, folder: Path) -> str:
    """Copy a folder into the bucket, and return its URI."""
    for file in folder.rglob("*"):
        if file.is_file():
            server.put(f"shop/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return f"{server.uri}/shop"


def ingested(source: str, tmp_path: Path) -> tuple[Catalogue, IngestReport]:
    """Ingest a source into the catalogue `shop` of its own folder."""
    settings = IngestSettings(source=source, name="shop", exclude=("drafts",))
    return ingest(source, settings, str(tmp_path / source.partition(":")[0].strip("/").replace("/", "-")), progress=False)


def test_a_bucket_gives_the_catalogue_of_the_same_folder(server: ObjectStore, tmp_path: Path) -> None:
    folder = put_all(tmp_path / "images", FILES | SKIPPED)
    uri = upload(server, folder)
    (local, local_report), (remote, report) = ingested(str(folder), tmp_path), ingested(uri, tmp_path)
    assert remote.fingerprint == local.fingerprint
    assert remote.read_jpegs(range(12)) == local.read_jpegs(range(12))
    assert (report.num_read, report.status_counts) == (local_report.num_read, local_report.status_counts) == (12, {"ok": 12})
    assert list_object_files(uri, ("drafts",)).skipped.keys() == {"Fruit/.DS_Store", "Onion/@eaDir/", "drafts/"}


def test_a_second_ingest_of_a_bucket_reads_what_changed(server: ObjectStore, tmp_path: Path) -> None:
    uri = upload(server, put_all(tmp_path / "images", FILES))
    first, _ = ingested(uri, tmp_path)
    assert ingested(uri, tmp_path)[1].num_read == 0
    server.put("shop/Onion/0.png", encoded(pattern(77)))
    server.delete("shop/Onion/1.png")
    second, report = ingested(uri, tmp_path)
    assert (report.num_read, report.num_removed, report.status_counts) == (1, 1, {"ok": 11})
    assert second.version == first.version + 1
    assert not set(second.frame["id"][second.frame["path"] == "Onion/0.png"]) & set(first.frame["id"])


def test_an_object_that_is_no_image_is_rejected(server: ObjectStore, tmp_path: Path) -> None:
    uri = upload(server, put_all(tmp_path / "images", FILES))
    server.put("shop/Onion/notes.txt", b"text")
    catalogue, report = ingested(uri, tmp_path)
    assert report.status_counts == {"ok": 12, "rejected": 1}
    assert catalogue.state.set_index("path").loc["Onion/notes.txt", "reason"]


def test_an_empty_place_in_a_bucket_is_one_message(server: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s3://images/nothing is empty: put images into s3://images/nothing/<class>/"):
        ingested(f"{server.uri}/nothing", tmp_path)
    with pytest.raises(DataError, match="there is no such bucket"):
        set_storage_options("s3://no-such-bucket", server.options)
        ingested("s3://no-such-bucket/shop", tmp_path)


@pytest.mark.parametrize("name", ["Apple #1", "who?", "50%25 off", "Übung b", "a+b&c"])
def test_any_name_of_a_folder_is_read(server: ObjectStore, tmp_path: Path, name: str) -> None:
    uri = upload(server, put_all(tmp_path / "images", {f"{name}/1.png": 1, f"{name}/2.png": 2, "other/1.png": 3}))
    catalogue, report = ingested(uri, tmp_path)
    assert report.status_counts == {"ok": 3}
    assert sorted(set(catalogue.frame["label"])) == sorted({name, "other"})


def test_empty_objects_are_folders_or_rejected_images(server: ObjectStore, tmp_path: Path) -> None:
    uri = upload(server, put_all(tmp_path / "images", FILES))
    for marker in ("shop/", "shop/Fruit/", "shop/Fruit/Apple/", "shop/Aaa/0.png"):
        server.put(marker, b"")
    catalogue, report = ingested(uri, tmp_path)
    assert report.status_counts == {"ok": 12, "rejected": 1}
    assert set(catalogue.state["path"][catalogue.state["status"] == "rejected"]) == {"Aaa/0.png"}

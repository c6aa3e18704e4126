"""Ingests at the same time into one catalogue: every row gives its own image, and near-duplicates across them share a split."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

from deeprank.data import object_store
from deeprank.data.catalogue import Catalogue, newest_events
from deeprank.data.images import to_stored_image
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.object_store import set_storage_options
from deeprank.data.synthetic import draw_image
from tests.drawing import encoded, put
from tests.object_store import running_object_store

NUM_ORIGINALS, OWN_IMAGES = 4, 3


def write_folders(parent: Path, count: int) -> list[Path]:
    """Write folders that share some files, and hold files of their own and resaved copies of the same originals."""
    originals = [draw_image(number, 0) for number in range(NUM_ORIGINALS)]
    folders = [parent / f"folder-{number}" for number in range(count)]
    for number, folder in enumerate(folders):
        for shared in range(3):
            put(folder / f"{'xy'[shared % 2]}/shared-{shared}.png", draw_image(10 + shared, 1))
        for own in range(OWN_IMAGES):
            put(folder / f"{'xy'[own % 2]}/own-{number}-{own}.png", draw_image(20 + OWN_IMAGES * number + own, 2))
        original = originals[number % NUM_ORIGINALS]
        size = (original.width - 2 * number, original.height - 2 * number)
        put(folder / f"x/copy-{number}.jpg", encoded(original.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90 - number))
    return folders


def run(folder: str, catalogues: str, options: dict[str, str]) -> tuple[str, int]:
    """Ingest a folder into the catalogue `shop`, and return the catalogue's uri and version."""
    set_storage_options(catalogues, options)
    catalogue, _ = ingest(Path(folder), IngestSettings(source=folder, name="shop"), catalogues, progress=False)
    return catalogue.uri, catalogue.version


def check(folders: list[Path], results: list[tuple[str, int]]) -> None:
    """Check every row of the newest version against the files."""
    (uri,) = {uri for uri, _ in results}
    version, events = newest_events(uri)
    assert sorted(number for _, number in results) == list(range(1, len(folders) + 1))
    assert version == len(folders)
    stored = {folder / path: to_stored_image((folder / path).read_bytes()).jpeg for folder in folders for path in listed(folder)}
    by_path = {file.relative_to(file.parents[1]).as_posix(): jpeg for file, jpeg in stored.items()}
    with_image = events[events["image_row"] >= 0].reset_index(drop=True)
    jpegs = Catalogue(uri, version).read_event_jpegs(with_image["image_row"].to_numpy())
    assert len(with_image) >= len(by_path)
    assert [by_path[path] == jpeg for path, jpeg in zip(with_image["path"], jpegs, strict=True)] == [True] * len(with_image)
    # An image is stored once, however many processes read it.
    assert events["has_image"].sum() == events["id"].nunique()
    last = events.drop_duplicates("path", keep="last").set_index("path")
    for original in range(NUM_ORIGINALS):
        copies = last.loc[[f"x/copy-{number}.jpg" for number in range(original, len(folders), NUM_ORIGINALS)]]
        groups_of_each = events[events["path"].isin(copies.index)].groupby("path")["duplicate_group"].last()
        assert groups_of_each.nunique() == 1, original


def listed(folder: Path) -> list[str]:
    """Return the paths of all files in a folder."""
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """Where the catalogue is, and the options that lead there."""
    monkeypatch.setattr(object_store, "_options", {})
    if request.param == "folder":
        yield str(tmp_path / "catalogues"), {}
        return
    with running_object_store() as server:
        yield f"{server.uri}/catalogues", server.options


def test_six_ingests_at_once_keep_one_history(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    folders = write_folders(tmp_path, 6)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda folder: run(str(folder), *place), folders))
    check(folders, results)


@pytest.mark.slow
def test_twenty_processes_keep_one_history(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    folders = write_folders(tmp_path, 20)
    with ProcessPoolExecutor(20, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, str(folder), *place) for folder in folders]
        results = [future.result() for future in futures]
    set_storage_options(*place)
    check(folders, results)


def test_a_later_ingest_keeps_what_another_one_added(tmp_path: Path) -> None:
    (folder,) = write_folders(tmp_path, 1)
    old = shutil.copytree(folder, tmp_path / "old")
    put(folder / "x" / "new.png", draw_image(99, 0))
    first, second = (run(str(path), str(tmp_path / "catalogues"), {}) for path in (old, folder))
    assert (first[1], second[1]) == (1, 2)
    assert len(Catalogue(*second).frame) == len(Catalogue(*first).frame) + 1

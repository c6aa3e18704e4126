"""Folders and files as they come, and what a catalogue makes of them over time."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeprank.data.images import canonical
from deeprank.data.ingest import SplitShares, ingest_folder, require_classes
from deeprank.errors import DataError
from tests.data.conftest import rows_of, take
from tests.drawing import decoded, encoded, pattern, put, put_all


def test_a_folder_without_a_usable_image_is_refused_by_name(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"x/1.png": b"text", "1.png": 1})
    catalogue, report = take(folder)
    assert report.counts == {"rejected": 2}
    with pytest.raises(DataError, match=f"{folder}: not one file is a readable image in a class folder"):
        require_classes(catalogue.frame, folder)


def test_a_whole_folder_without_a_image_is_refused(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"x/1.png": b"text"})
    with pytest.raises(DataError, match="not one file is a readable image"):
        ingest_folder(folder, str(tmp_path / "catalogues"), lambda _: None)


def test_a_duplicate_takes_over_when_its_original_vanishes(folder: Path) -> None:
    shutil.copy(folder / "x" / "0.png", folder / "y" / "copy.png")
    old, _ = take(folder)
    (folder / "x" / "0.png").unlink()
    new, report = take(folder)
    before, after = rows_of(old)["x/0.png"], rows_of(new)["y/copy.png"]
    assert (after["status"], after["reason"], after["label"]) == ("ok", "", "y")
    assert (after["id"], after["split"]) == (before["id"], before["split"])
    assert report.counts == {"ok": 6}
    place = int(np.flatnonzero(new.frame["path"] == "y/copy.png")[0])
    assert new.images([place]) == old.images([int(np.flatnonzero(old.frame["path"] == "x/0.png")[0])])


@pytest.mark.parametrize("seed", range(6))
def test_after_any_history_the_catalogue_holds_what_the_folder_holds(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    names = [f"{label}/{i}.png" for label in "xyz" for i in range(4)]
    folder = put_all(tmp_path / "f", {name: rng.randrange(8) for name in rng.sample(names, 6)})
    splits: dict[str, str] = {}
    for _ in range(6):
        catalogue, report = take(folder, shares=SplitShares(train=0.4, val=0.3, test=0.3))
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert sum(report.counts.values()) == report.found == len(files)
        contents = {file.read_bytes() for file in files}
        kept = [(folder / path).read_bytes() for path in catalogue.frame["path"]]
        assert len(kept) == len(set(kept)) == len(contents)
        assert catalogue.images(range(len(kept))) == [canonical(data).jpeg for data in kept]
        for row in catalogue.frame.itertuples():
            assert splits.setdefault(row.id, row.split) == row.split
        for _ in range(rng.randint(1, 4)):
            there = [name for name in names if (folder / name).exists()]
            name, what = rng.choice(names), rng.random()
            if what < 0.4:
                put(folder / name, rng.randrange(8))
            elif what < 0.7 and len(there) > 2:
                (folder / rng.choice(there)).unlink()
            elif (source := rng.choice(there)) != name:
                put(folder / name, (folder / source).read_bytes())


def test_a_joined_group_stays_joined_at_the_next_ingest(tmp_path: Path) -> None:
    first, second = pattern(1), pattern(2)
    settings = {"near_duplicate_bits": 20, "shares": SplitShares(train=0.4, val=0.3, test=0.3)}
    folder = put_all(tmp_path / "f", {"x/a.png": first, "x/b.png": second})
    assert len({row["group"] for row in rows_of(take(folder, **settings)[0]).values()}) == 2
    put(folder / "x" / "c.png", Image.blend(first, second, 0.5))
    joined = rows_of(take(folder, **settings)[0])
    assert len({row["group"] for row in joined.values()}) == 1
    put(folder / "y" / "unrelated.png", 11)
    later = rows_of(take(folder, **settings)[0])
    for path, row in joined.items():
        assert (later[path]["group"], later[path]["split"]) == (row["group"], row["split"]), path


def test_a_name_that_is_no_unicode_is_a_row_too(folder: Path) -> None:
    shutil.copy(os.fsencode(folder / "x" / "0.png"), os.fsencode(folder / "x") + b"/caf\xe9.png")
    _catalogue, report = take(folder)
    assert sum(report.counts.values()) == report.found == 7


def test_a_link_back_to_its_own_folder_is_not_followed_round_and_round(folder: Path) -> None:
    (folder / "x" / "self").symlink_to(folder / "x")
    assert take(folder)[1].found <= 10


@pytest.mark.parametrize("name", ["broken.avif", "long-comment.gif", "too-wide.png"])
def test_one_odd_file_does_not_end_an_ingest(folder: Path, name: str) -> None:
    put(folder / "x" / name, _odd(name))
    catalogue, report = take(folder)
    assert report.found == sum(report.counts.values()) == 7
    assert rows_of(catalogue)[f"x/{name}"]["status"] in ("ok", "rejected")


def _odd(name: str) -> bytes:
    if name == "broken.avif":
        data = bytearray(encoded(pattern(1), "AVIF"))
        at = data.index(b"iinf") + 4
        data[at : at + 8] = b"\0" * 8
        return bytes(data)
    if name == "long-comment.gif":
        return encoded(pattern(1).convert("P"), "GIF", comment=b"x" * 70_000)
    return encoded(Image.new("RGB", (70_000, 20)))


@pytest.mark.parametrize("name", ["broken.avif", "long-comment.gif", "too-wide.png"])
def test_an_odd_file_is_a_image_or_a_data_error(name: str) -> None:
    try:
        found = canonical(_odd(name))
    except DataError as error:
        assert str(error)
    else:
        assert decoded(found.jpeg).shape == (found.height, found.width, 3)


def test_a_dark_16_bit_image_stays_dark() -> None:
    found = canonical(encoded(Image.fromarray(np.full((64, 64), 200, np.uint16))))
    assert decoded(found.jpeg).mean() < 5


def test_a_floating_point_image_of_0_to_1_is_not_black() -> None:
    found = canonical(encoded(Image.fromarray(np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))), "TIFF"))
    assert decoded(found.jpeg).max() > 100

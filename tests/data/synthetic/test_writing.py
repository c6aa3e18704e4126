"""Synthetic images as files: the same bytes for the same seed, with the documented paths, however many processes write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeprank.data.synthetic import draw_image, label_path, write_synthetic, writing
from deeprank.errors import DataError

SIZE = 64


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def test_equal_seeds_give_equal_files_and_other_seeds_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_synthetic(tmp_path / name, classes=4, images=2, seed=seed, size=SIZE)
    a, b, c = (_files(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not set(a.values()) & set(c.values())


def test_layout_and_number_of_files(tmp_path: Path) -> None:
    assert write_synthetic(tmp_path, classes=7, images=3, size=SIZE) == 21
    expected = {"/".join((*label_path(c), f"{i:03d}.jpg")) for c in range(7) for i in range(3)}
    assert _files(tmp_path).keys() == expected


def test_an_image_does_not_depend_on_the_number_of_images(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "few", classes=2, images=2, size=SIZE)
    write_synthetic(tmp_path / "many", classes=5, images=4, size=SIZE)
    few, many = _files(tmp_path / "few"), _files(tmp_path / "many")
    assert few.items() <= many.items()


def test_an_image_does_not_depend_on_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_synthetic(tmp_path / "one-process", classes=3, images=5, size=SIZE)
    monkeypatch.setattr(writing, "MAX_IMAGES_IN_ONE_PROCESS", 1)
    monkeypatch.setattr(writing, "IMAGES_PER_TASK", 2)
    assert write_synthetic(tmp_path / "pool", classes=3, images=5, size=SIZE, progress=True) == 15
    assert _files(tmp_path / "one-process") == _files(tmp_path / "pool")


def test_the_drawn_image_is_written_as_jpeg(tmp_path: Path) -> None:
    write_synthetic(tmp_path, classes=1, images=1, seed=5, size=SIZE)
    with Image.open(tmp_path.joinpath(*label_path(0), "000.jpg")) as written:
        difference = np.asarray(written, np.float32) - np.asarray(draw_image(0, 0, seed=5, size=SIZE), np.float32)
    assert np.abs(difference).mean() < 10


@pytest.mark.parametrize(("wrong", "message"), [({"classes": 0}, "classes"), ({"images": 0}, "images"), ({"size": 8}, "size")])
def test_too_small_numbers_are_refused_before_writing(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"{message} must be .* or more, not {next(iter(wrong.values()))}"):
        write_synthetic(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()

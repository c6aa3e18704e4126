"""Rendered products: the same for the same arguments, different where they should be, laid out as promised."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeprank.data.synthetic import label_path, render, write_synthetic, writing
from deeprank.data.synthetic.drawing import front
from deeprank.data.synthetic.products import KINDS, detail_of
from deeprank.errors import DataError

SIZE = 64


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def test_same_seed_writes_the_same_bytes_and_another_seed_other_ones(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_synthetic(tmp_path / name, classes=4, images=2, seed=seed, size=SIZE)
    a, b, c = (_files(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not set(a.values()) & set(c.values())


def test_layout_and_count_of_files(tmp_path: Path) -> None:
    assert write_synthetic(tmp_path, classes=7, images=3, size=SIZE) == 21
    expected = {"/".join((*label_path(c), f"{i:03d}.jpg")) for c in range(7) for i in range(3)}
    assert _files(tmp_path).keys() == expected


def test_a_image_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "few", classes=2, images=2, size=SIZE)
    write_synthetic(tmp_path / "many", classes=5, images=4, size=SIZE)
    few, many = _files(tmp_path / "few"), _files(tmp_path / "many")
    assert few.items() <= many.items()


def test_a_image_does_not_depend_on_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_synthetic(tmp_path / "here", classes=3, images=5, size=SIZE)
    monkeypatch.setattr(writing, "POOL_FROM", 1)
    monkeypatch.setattr(writing, "CHUNK", 2)
    assert write_synthetic(tmp_path / "pool", classes=3, images=5, size=SIZE, progress=True) == 15
    assert _files(tmp_path / "here") == _files(tmp_path / "pool")


def test_render_is_what_is_written_before_jpeg(tmp_path: Path) -> None:
    write_synthetic(tmp_path, classes=1, images=1, seed=5, size=SIZE)
    with Image.open(tmp_path.joinpath(*label_path(0), "000.jpg")) as written:
        difference = np.asarray(written, np.float32) - np.asarray(render(0, 0, seed=5, size=SIZE), np.float32)
    assert np.abs(difference).mean() < 10


@pytest.mark.parametrize("size", [32, 64, 200])
def test_shorter_side_is_the_size_and_the_format_varies(size: int) -> None:
    images = [render(c, i, size=size) for c in (0, 5, 10, 30, 39) for i in range(4)]
    assert {p.mode for p in images} == {"RGB"}
    assert {min(p.size) for p in images} == {size}
    assert max(max(p.size) for p in images) <= round(1.5 * size)
    shapes = {(p.width > p.height) - (p.width < p.height) for p in images}
    assert {-1, 1} <= shapes


def test_images_of_one_class_differ_widely() -> None:
    thumbnails = np.stack([np.asarray(render(9, i, size=SIZE).resize((16, 16)), np.float32) for i in range(12)])
    distance = np.abs(thumbnails[:, None] - thumbnails[None]).mean((2, 3, 4))
    assert distance[np.triu_indices(12, 1)].min() > 8


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_variants_of_a_kind_differ_on_the_front(kind: int) -> None:
    fronts = [np.asarray(front(KINDS[kind], detail_of(kind, v), 96, 128), np.float32) for v in range(5)]
    for a in range(5):
        for b in range(a):
            changed = (np.abs(fronts[a] - fronts[b]).max(-1) > 24).mean()
            assert changed > 0.01, f"variants {a} and {b} look the same"
    assert len({detail_of(kind, v) for v in range(300)}) == 300


def test_first_classes_have_every_group_with_several_kinds_of_three_variants() -> None:
    labels = [label_path(c) for c in range(36)]
    kinds = Counter(kind for _, kind, _ in labels)
    assert set(kinds.values()) == {3}
    groups = Counter(group for group, _ in {(group, kind) for group, kind, _ in labels})
    assert len(groups) == 6
    assert min(groups.values()) >= 2


def test_labels_are_unique_readable_and_nested() -> None:
    labels = [label_path(c) for c in range(500)]
    assert len(set(labels)) == len({variant for _, _, variant in labels}) == 500
    assert len({kind for _, kind, _ in labels}) == len({(group, kind) for group, kind, _ in labels}) == len(KINDS)
    assert label_path(2) == ("bottles", "juice-bottle", "juice-bottle-03")
    for _, kind, variant in labels:
        assert variant.startswith(kind + "-")


def test_far_classes_can_be_drawn() -> None:
    assert render(123_456, 0, size=SIZE).mode == "RGB"


@pytest.mark.parametrize(("wrong", "message"), [({"classes": 0}, "classes"), ({"images": 0}, "images"), ({"size": 8}, "size")])
def test_numbers_too_small_are_refused_and_nothing_is_written(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"{message} must be .* or more, not {next(iter(wrong.values()))}"):
        write_synthetic(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_negative_class_is_refused() -> None:
    with pytest.raises(DataError, match="class_index"):
        label_path(-1)

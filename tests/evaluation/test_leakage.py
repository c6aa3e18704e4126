"""Copies across splits are found, however they were cut and encoded; other images of the same product are none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.synthetic import render
from deeprank.errors import DataError
from deeprank.evaluation.leakage import (
    COLUMNS,
    LeakageSettings,
    check_leaks,
    find_leaks,
    leak_pairs_figure,
    report_leaks,
    require_no_leaks,
    similarity,
    unresolved,
)
from deeprank.reporting import Record
from tests.drawing import encoded, put

IMAGES = 8
EXACT = "test/p0/same.jpg"


def _copy(image: Image.Image, seed: int) -> Image.Image:
    """Crop 3 to 8 % off each side length and shrink to 50 to 90 %."""
    rng = np.random.default_rng(seed)
    width, height = image.size
    part = 1 - rng.uniform(0.03, 0.08, 2)
    left, top = rng.uniform(0, 1 - part) * (width, height)
    scale = rng.uniform(0.5, 0.9)
    size = (round(width * part[0] * scale), round(height * part[1] * scale))
    return image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + part[0] * width, top + part[1] * height))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Three products; of each, two train images come again in test and one in val; one train file is also in test."""
    folder = tmp_path_factory.mktemp("planted")
    for product in range(3):
        shots = [render(product, image) for image in range(IMAGES)]
        splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
        for image, (split, shot) in enumerate(zip(splits, shots, strict=True)):
            put(folder / f"{split}/p{product}/{image}.jpg", encoded(shot, "JPEG", quality=95))
        for image, split in enumerate(["test", "test", "val"]):
            copy = _copy(shots[image], seed=10 * product + image)
            put(folder / f"{split}/p{product}/copy{image}.jpg", encoded(copy, "JPEG", quality=70))
    put(folder / EXACT, (folder / "train/p0/3.jpg").read_bytes())
    return ingest(folder, IngestSettings(), str(tmp_path_factory.mktemp("catalogues")), progress=False)[0]


@pytest.fixture(scope="module")
def leaks(planted: Catalogue) -> pd.DataFrame:
    return find_leaks(planted, LeakageSettings())


def test_planted_copies_are_found_and_nothing_else(leaks: pd.DataFrame) -> None:
    near = leaks[leaks["kind"] == "near"]
    expected = {(f"{split}/p{p}/copy{i}.jpg", f"train/p{p}/{i}.jpg") for p in range(3) for i, split in enumerate(["test", "test", "val"])}
    assert set(zip(near["path"], near["other_path"], strict=True)) == expected


def test_rows_splits_and_hashes_are_those_of_the_catalogue(leaks: pd.DataFrame, planted: Catalogue) -> None:
    near, frame = leaks[leaks["kind"] == "near"], planted.frame
    for pair in near.itertuples():
        row, other = frame.iloc[pair.row], frame.iloc[pair.other]
        assert (row["path"], row["split"], other["path"], other["split"]) == (pair.path, pair.split, pair.other_path, pair.other_split)
        assert (int(row["phash"]) ^ int(other["phash"])).bit_count() == pair.phash_bits
    assert list(leaks.columns) == COLUMNS
    assert leaks["similarity"].is_monotonic_decreasing


def test_files_of_the_same_bytes_are_listed_though_the_catalogue_holds_one(leaks: pd.DataFrame, planted: Catalogue) -> None:
    exact = leaks[leaks["kind"] == "exact"]
    assert exact[["path", "other_path", "split", "other_split"]].to_numpy().tolist() == [[EXACT, "train/p0/3.jpg", "test", "train"]]
    # The train split keeps it, so that leaving the copy out costs no image to learn from.
    assert exact["row"].tolist() == [-1]
    assert planted.frame["path"].iloc[exact["other"]].tolist() == ["train/p0/3.jpg"]
    assert exact["similarity"].tolist() == [1.0]


def test_different_images_of_one_product_are_no_copies(planted: Catalogue) -> None:
    frame = planted.frame[~planted.frame["path"].str.contains("copy")]
    pairs = np.array([(a, b) for _, rows in frame.groupby("label").groups.items() for a in rows for b in rows if a < b])
    assert len(pairs) == 3 * IMAGES * (IMAGES - 1) // 2
    assert similarity(planted, pairs).max() < LeakageSettings().similarity


def test_a_image_lies_on_itself_and_brightness_does_not_matter(tmp_path: Path) -> None:
    shot = render(0, 0)
    for name, image in {"a": shot, "b": shot.point(lambda value: value * 0.7 + 20)}.items():
        put(tmp_path / f"p/train/x/{name}.png", image)
    put(tmp_path / "p/test/x/c.png", render(1, 0))
    catalogue, _ = ingest(tmp_path / "p", IngestSettings(), str(tmp_path / "catalogues"), progress=False)
    a, b = (catalogue.frame.index[catalogue.frame["path"] == f"train/x/{name}.png"][0] for name in "ab")
    assert similarity(catalogue, np.array([(a, a), (a, b)])) == pytest.approx([1, 1], abs=2e-3)
    none = find_leaks(catalogue, LeakageSettings())
    assert list(none.columns) == COLUMNS
    assert not len(none)
    assert none[["row", "other", "phash_bits"]].dtypes.eq(np.int64).all()


def test_copies_stop_a_run_unless_told_otherwise(leaks: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^10 pairs") as error:
        require_no_leaks(leaks, LeakageSettings())
    message = str(error.value)
    assert f"{EXACT} ~ train/p0/3.jpg (exact, similarity 1.000)" in message
    assert "--set leakage.on_leak=leave_out" in message
    assert "--set leakage.on_leak=warn" in message
    with pytest.raises(DataError, match="and 10 more"):
        require_no_leaks(pd.concat([leaks] * 6), LeakageSettings())
    for choice in ("warn", "leave_out"):
        require_no_leaks(leaks, LeakageSettings(on_leak=choice))
    require_no_leaks(leaks.iloc[:0], LeakageSettings())


def test_copies_can_be_left_out(planted: Catalogue, tmp_path: Path) -> None:
    record = Record(tmp_path)
    kept = check_leaks(planted, LeakageSettings(on_leak="leave_out"), record)
    assert record.notes == {"leaks.on_leak": "leave_out"}
    assert {point.name: point.value for point in record.points} == {"leaks.pairs": 10, "leaks.exact": 1, "leaks.test_queries": 6}
    assert set(record.figures) == {"leaks"}
    assert set(kept.frame["path"].iloc[kept.rows("test")]) == {f"test/p{p}/{i}.jpg" for p in range(3) for i in (6, 7)}
    assert set(kept.frame["path"].iloc[kept.rows("val")]) == {f"val/p{p}/{i}.jpg" for p in range(3) for i in (4, 5)}
    assert kept.frame[kept.frame["split"] == "train"]["path"].tolist() == planted.frame[planted.frame["split"] == "train"]["path"].tolist()
    reasons = kept.state.set_index("path")["reason"]
    assert reasons["test/p1/copy0.jpg"].startswith("copy of train/p1/0.jpg, similarity 0.9")
    assert reasons[EXACT] == "copy of train/p0/3.jpg, similarity 1.000"
    assert not len(find_leaks(kept, LeakageSettings()))


def test_where_there_are_none_zeros_and_no_picture_are_reported(leaks: pd.DataFrame, planted: Catalogue, tmp_path: Path) -> None:
    record = Record(tmp_path)
    report_leaks(planted, leaks.iloc[:0], LeakageSettings(), record)
    assert [point.value for point in record.points] == [0, 0, 0]
    assert not record.figures


def test_the_picture_has_both_images_of_a_pair_side_by_side(leaks: pd.DataFrame, planted: Catalogue) -> None:
    drawn = [axes for axes in leak_pairs_figure(planted, leaks, count=3).axes if axes.images]
    titles = [axes.get_title().split("\n")[1] for axes in drawn]
    assert titles == [path for r in leaks.head(3).itertuples() for path in (r.path, r.other_path)]
    exact = leaks.index[leaks["kind"] == "exact"][0]
    one, other = drawn[2 * exact : 2 * exact + 2]
    assert np.array_equal(one.images[0].get_array(), other.images[0].get_array())


def test_copies_that_are_only_warned_of_make_a_comparison_invalid(planted: Catalogue, leaks: pd.DataFrame, tmp_path: Path) -> None:
    def told(choice: str, found: pd.DataFrame) -> list[str]:
        record = Record(tmp_path / choice)
        report_leaks(planted, found, LeakageSettings(on_leak=choice), record)
        return unresolved(record)

    assert told("warn", leaks) == ["6 test images have a copy in train, and leakage.on_leak is warn"]
    assert told("leave_out", leaks) == told("warn", leaks.iloc[:0]) == []

"""Cropped and recompressed copies across splits are found; other images of the same product are not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deeprank.data.catalogue import EXCLUDED, Catalogue
from deeprank.data.copies import confirm_copies
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.synthetic import draw_image
from deeprank.errors import DataError
from deeprank.evaluation import leakage
from deeprank.evaluation.leakage import (
    COLUMNS,
    LeakageSettings,
    _nearest,
    check_leakage,
    find_leaks,
    report_leakage,
    require_no_leaks,
    unresolved_leakage,
)
from deeprank.reporting import Record
from tests.drawing import encoded, put

IMAGES = 8
EXACT = "test/p0/same.jpg"


def _copy(image: Image.Image, seed: int) -> Image.Image:
    """Crop 3 to 8 % off each side length and shrink to 50 to 90 %."""
    rng = np.random.default_rng(seed)
    width, height = image.size
    crop = 1 - rng.uniform(0.03, 0.08, 2)
    left, top = rng.uniform(0, 1 - crop) * (width, height)
    scale = rng.uniform(0.5, 0.9)
    size = (round(width * crop[0] * scale), round(height * crop[1] * scale))
    return image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + crop[0] * width, top + crop[1] * height))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Three products, each with copies of two train images in test and of one in val; one train file is also in test."""
    folder = tmp_path_factory.mktemp("planted")
    for product in range(3):
        images = [draw_image(product, image) for image in range(IMAGES)]
        splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
        for number, (split, image) in enumerate(zip(splits, images, strict=True)):
            put(folder / f"{split}/p{product}/{number}.jpg", encoded(image, "JPEG", quality=95))
        for number, split in enumerate(["test", "test", "val"]):
            copy = _copy(images[number], seed=10 * product + number)
            put(folder / f"{split}/p{product}/copy{number}.jpg", encoded(copy, "JPEG", quality=70))
    put(folder / EXACT, (folder / "train/p0/3.jpg").read_bytes())
    return ingest(folder, IngestSettings(), str(tmp_path_factory.mktemp("catalogues")), progress=False)[0]


@pytest.fixture(scope="module")
def leaks(planted: Catalogue) -> pd.DataFrame:
    return find_leaks(planted, LeakageSettings())


def test_exactly_the_planted_copies_are_found(leaks: pd.DataFrame) -> None:
    near = leaks[leaks["kind"] == "near"]
    expected = {(f"{split}/p{p}/copy{i}.jpg", f"train/p{p}/{i}.jpg") for p in range(3) for i, split in enumerate(["test", "test", "val"])}
    assert set(zip(near["path"], near["other_path"], strict=True)) == expected


def test_rows_splits_and_hashes_match_the_catalogue(leaks: pd.DataFrame, planted: Catalogue) -> None:
    near, frame = leaks[leaks["kind"] == "near"], planted.frame
    for pair in near.itertuples():
        row, other = frame.iloc[pair.row], frame.iloc[pair.other]
        assert (row["path"], row["split"], other["path"], other["split"]) == (pair.path, pair.split, pair.other_path, pair.other_split)
        assert (int(row["phash"]) ^ int(other["phash"])).bit_count() == pair.phash_bits
    assert list(leaks.columns) == COLUMNS
    assert leaks["similarity"].is_monotonic_decreasing


def test_files_with_the_same_bytes_are_listed(leaks: pd.DataFrame, planted: Catalogue) -> None:
    exact = leaks[leaks["kind"] == "exact"]
    assert exact[["path", "other_path", "split", "other_split"]].to_numpy().tolist() == [[EXACT, "train/p0/3.jpg", "test", "train"]]
    # The train file is in the frame, so excluding the copy removes no training image.
    assert exact["row"].tolist() == [-1]
    assert planted.frame["path"].iloc[exact["other"]].tolist() == ["train/p0/3.jpg"]
    assert exact["similarity"].tolist() == [1.0]


def test_different_images_of_one_product_are_not_copies(planted: Catalogue) -> None:
    frame = planted.frame[~planted.frame["path"].str.contains("copy")]
    pairs = np.array([(a, b) for _, rows in frame.groupby("label").groups.items() for a in rows for b in rows if a < b])
    assert len(pairs) == 3 * IMAGES * (IMAGES - 1) // 2
    assert confirm_copies(pairs, planted.read_jpegs).max() < LeakageSettings().similarity


def test_without_copies_the_table_of_leaks_is_empty(tmp_path: Path) -> None:
    for name in ("train/x/a", "train/y/a", "test/x/b"):
        put(tmp_path / f"p/{name}.png", draw_image(sum(map(ord, name)) % 7, 0))
    leaks = find_leaks(ingest(tmp_path / "p", IngestSettings(), str(tmp_path / "catalogues"), progress=False)[0], LeakageSettings())
    assert list(leaks.columns) == COLUMNS
    assert not len(leaks)
    assert leaks[["row", "other", "phash_bits"]].dtypes.eq(np.int64).all()


def test_copies_stop_a_run_unless_on_leak_allows_them(leaks: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^10 pairs") as error:
        require_no_leaks(leaks, LeakageSettings(on_leak="stop"))
    message = str(error.value)
    assert f"{EXACT} ~ train/p0/3.jpg (exact, similarity 1.000)" in message
    assert "--set leakage.on_leak=exclude" in message
    assert "--set leakage.on_leak=warn" in message
    with pytest.raises(DataError, match="and 10 more"):
        require_no_leaks(pd.concat([leaks] * 6), LeakageSettings(on_leak="stop"))
    for choice in ("warn", "exclude"):
        require_no_leaks(leaks, LeakageSettings(on_leak=choice))
    require_no_leaks(leaks.iloc[:0], LeakageSettings(on_leak="stop"))


def test_copies_leave_the_evaluation_and_not_the_catalogue(planted: Catalogue, tmp_path: Path) -> None:
    record = Record(tmp_path)
    checked = check_leakage(planted, LeakageSettings(on_leak="exclude"), record)
    assert record.notes == {"leakage.on_leak": "exclude"}
    assert {point.name: point.value for point in record.points} == {"leakage.pairs": 10, "leakage.exact": 1, "leakage.test_queries": 6}
    assert set(record.figures) == {"leakage"}
    assert set(checked.frame["path"].iloc[checked.rows("test")]) == {f"test/p{p}/{i}.jpg" for p in range(3) for i in (6, 7)}
    assert set(checked.frame["path"].iloc[checked.rows("val")]) == {f"val/p{p}/{i}.jpg" for p in range(3) for i in (4, 5)}
    assert (
        checked.frame[checked.frame["split"] == "train"]["path"].tolist()
        == planted.frame[planted.frame["split"] == "train"]["path"].tolist()
    )
    copies = {f"test/p{p}/copy{i}.jpg" for p in range(3) for i in (0, 1)} | {f"val/p{p}/copy2.jpg" for p in range(3)}
    assert set(checked.frame["path"][checked.frame["split"] == EXCLUDED]) == copies
    # The table is as it was, and the excluded images are searched like all others.
    assert (checked.uri, checked.version) == (planted.uri, planted.version)
    assert checked.frame["path"].equals(planted.frame["path"])
    assert checked.fingerprint != planted.fingerprint


def test_without_copies_zeros_and_no_figure_are_reported(leaks: pd.DataFrame, planted: Catalogue, tmp_path: Path) -> None:
    record = Record(tmp_path)
    report_leakage(planted, leaks.iloc[:0], LeakageSettings(), record)
    assert [point.value for point in record.points] == [0, 0, 0]
    assert not record.figures


def test_copies_that_are_not_excluded_are_unresolved(planted: Catalogue, leaks: pd.DataFrame, tmp_path: Path) -> None:
    def unresolved(choice: str, copies: pd.DataFrame) -> list[str]:
        record = Record(tmp_path / choice)
        report_leakage(planted, copies, LeakageSettings(on_leak=choice), record)
        return unresolved_leakage(record)

    assert unresolved("warn", leaks) == ["6 test images have a copy in train, and leakage.on_leak is warn"]
    assert unresolved("exclude", leaks) == unresolved("warn", leaks.iloc[:0]) == []


def test_of_a_large_gallery_the_nearest_lists_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((4000, 16)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries = gallery[::40] + 0.02 * rng.standard_normal((100, 16)).astype(np.float32)
    exact = _nearest(queries, gallery)
    monkeypatch.setattr(leakage, "MAX_FLAT_GALLERY", 1000)
    cosine, neighbors = _nearest(queries, gallery)
    assert (neighbors[:, 0] == exact[1][:, 0]).all()
    assert np.allclose(cosine[:, 0], exact[0][:, 0], atol=1e-6)


def test_the_features_of_known_images_are_read_not_computed(planted: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_leaks(planted, LeakageSettings())
    monkeypatch.setattr("deeprank.models.embedding_table.embed_batches", None)
    assert find_leaks(planted, LeakageSettings()).equals(first)

"""Splits, questions about the folder, and what is said before an image is decoded."""

from itertools import product
from pathlib import Path

import pytest

from deeprank.data.ingest import IngestSettings, ingest
from deeprank.errors import DataError
from tests.data.conftest import rows_by_path, run_ingest
from tests.drawing import put_all


def test_train_val_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    files = {
        f"{split}/{label}/{i}.png": 100 * s + 10 * k + i
        for s, split in enumerate(("train", "val", "test"))
        for k, label in enumerate("xy")
        for i in range(2)
    }
    folder = put_all(tmp_path / "f", files | {"train/loose.png": 901, "beside.png": 902, "extra/x/1.png": 903, "classes.csv": b"x,y"})
    catalogue, report = run_ingest(folder)
    assert {(row.path.split("/")[0], row.split) for row in catalogue.frame.itertuples()} == {(s, s) for s in ("train", "val", "test")}
    assert set(catalogue.frame["label"]) == {"x", "y"}
    rows = rows_by_path(catalogue)
    assert rows["train/loose.png"]["reason"] == "not in a class folder"
    assert {rows[path]["reason"] for path in ("beside.png", "extra/x/1.png", "classes.csv")} == {
        "outside train/, val/ and test/, which this folder has"
    }
    assert report.status_counts == {"ok": 12, "rejected": 4}
    assert report.num_crossing_groups == 0


def test_train_without_test_is_a_class(tmp_path: Path) -> None:
    with_test = put_all(tmp_path / "with", {"train/x/1.png": 1, "test/x/2.png": 2})
    without_test = put_all(tmp_path / "without", {"train/1.png": 1, "other/2.png": 2})
    assert run_ingest(with_test)[0].frame["split"].tolist() == ["test", "train"]
    assert run_ingest(without_test)[0].frame["label"].tolist() == ["other", "train"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x/1.png": 1, "x/2.png": 2}, "only one class, x"),
        ({"x/1.png": 1, "y/2.png": b"text", "z/3.png": b"\0\0\0\x14ftypqt  "}, "only one class, x.*2 files: not an image"),
        ({"x/1.HEIC": b"\0\0\0\x18ftypheic", "y/2.png": b""}, "no file is a readable image.*1 files: HEIC.*convert it to JPEG.*empty"),
        ({"1.png": 1, "2.png": 2}, "no file is a readable image.*2 files: not in a class folder"),
    ],
    ids=["one class", "one with images", "HEIC", "no class folder"],
)
def test_too_few_classes_are_found_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, int | bytes], message: str
) -> None:
    monkeypatch.setattr("deeprank.data.ingest.read_files", lambda *_: pytest.fail("no image must be decoded"))
    folder = put_all(tmp_path / "f", files)
    with pytest.raises(DataError, match=message):
        ingest(folder, IngestSettings(), str(tmp_path / "catalogues"), min_classes=2)
    assert not (tmp_path / "catalogues").exists()


def test_excluded_files_are_part_of_the_table(folder: Path) -> None:
    everything, _ = run_ingest(folder)
    without, report = run_ingest(folder, exclude=("x/1.*",))
    assert everything.uri != without.uri
    assert (len(without.frame), report.num_skipped) == (5, 1)
    assert report.messages == ["1 file skipped by ingest.exclude: x/1.png"]
    assert run_ingest(folder)[0] == everything


def test_top_folders_with_the_same_classes_are_a_question(tmp_path: Path) -> None:
    folder = put_all(
        tmp_path / "f", {f"{top}/{label}/1.png": k for k, (top, label) in enumerate(product(("2023", "2024"), ("cup", "mug")))}
    )
    with pytest.raises(DataError, match=r"2023/, 2024/ have the same class folders .*cup, mug.*splits, visits or classes"):
        run_ingest(folder)
    catalogue, report = run_ingest(folder, shared_class_names="keep")
    assert set(catalogue.frame["label"]) == {"2023/cup", "2023/mug", "2024/cup", "2024/mug"}
    assert any("these are different classes" in message for message in report.messages)


@pytest.mark.parametrize("tops", [("Training", "Test"), ("train_set", "test-set"), ("TRAIN", "Evaluation"), ("trainset", "testdata")])
def test_splits_by_other_names_are_splits(tmp_path: Path, tops: tuple[str, str]) -> None:
    names = product(tops, ("cup", "mug"))
    catalogue, report = run_ingest(put_all(tmp_path / "f", {f"{top}/{label}/1.png": k for k, (top, label) in enumerate(names)}))
    assert set(catalogue.frame["label"]) == {"cup", "mug"}
    assert {row.path.split("/")[0]: row.split for row in catalogue.frame.itertuples()} == {tops[0]: "train", tops[1]: "test"}
    assert report.messages == []


def test_without_a_test_folder_val_is_test(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "f", {"train/x/1.png": 1, "train/y/2.png": 2, "Validation/x/3.png": 3, "Validation/y/4.png": 4})
    catalogue, report = run_ingest(folder)
    assert catalogue.frame["split"].value_counts().to_dict() == {"train": 2, "test": 2}
    assert report.messages == ["there is no test folder: Validation/ serves as the test split, and there is no val split"]
    assert run_ingest(folder, version=1)[0] == catalogue
    put_all(folder, {"test/x/5.png": 5})
    with_test, report = run_ingest(folder)
    assert with_test.frame["split"].value_counts().to_dict() == {"train": 2, "val": 2, "test": 1}
    assert report.messages == []


def test_a_single_folder_around_the_splits_is_no_class(tmp_path: Path) -> None:
    names = list(product(("train", "test"), ("cup", "mug")))
    folder = put_all(tmp_path / "f", {f"dataset/{split}/{label}/1.png": k for k, (split, label) in enumerate(names)} | {"readme.txt": b"x"})
    catalogue, report = run_ingest(folder)
    assert {(row.split, row.label) for row in catalogue.frame.itertuples()} == set(names)
    assert report.messages[0] == "dataset/ holds the splits test/, train/; its name is no part of a label"
    assert rows_by_path(catalogue)["readme.txt"]["reason"] == "outside dataset/train/ and dataset/test/, which this folder has"
    assert run_ingest(folder, version=1)[0] == catalogue


def test_a_folder_beside_the_folder_of_splits_is_a_question(tmp_path: Path) -> None:
    files = {f"dataset/{split}/{label}/1.png": k for k, (split, label) in enumerate(product(("train", "test"), ("cup", "mug")))}
    folder = put_all(tmp_path / "f", files)
    before, _ = run_ingest(folder)
    put_all(folder, {"more/pot/1.png": 9})
    with pytest.raises(DataError, match=r"are in dataset/, but other folders are beside.*shared_class_names=keep"):
        run_ingest(folder)
    catalogue, _ = run_ingest(folder, shared_class_names="keep")
    assert catalogue.uri != before.uri
    assert set(catalogue.frame["label"]) == {"dataset/train/cup", "dataset/train/mug", "dataset/test/cup", "dataset/test/mug", "more/pot"}


def test_links_in_wrapped_split_folders_are_followed(tmp_path: Path) -> None:
    folder = put_all(
        tmp_path / "f", {f"dataset/all/{label}/{i}.png": 10 * k + i for k, label in enumerate(("cup", "mug")) for i in range(2)}
    )
    for i, split in enumerate(("train", "test")):
        for label in ("cup", "mug"):
            link = folder / "dataset" / split / label / f"{i}.png"
            link.parent.mkdir(parents=True)
            link.symlink_to(folder / "dataset" / "all" / label / f"{i}.png")
    catalogue, _ = run_ingest(folder)
    assert catalogue.frame["split"].value_counts().to_dict() == {"train": 2, "test": 2}
    assert set(catalogue.frame["label"]) == {"cup", "mug"}

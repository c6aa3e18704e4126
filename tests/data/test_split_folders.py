"""Folder names stand for splits, or the same classes under several folders are a question."""

import pytest

from deeprank.data.split_folders import find_split_folders, folders_with_splits, require_distinct_classes, shared_class_names, split_of_name
from deeprank.errors import DataError


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Train TRAIN training train_set trainset train-set TrainSet train_data training_set train2017 images_train 1_train",
        ),
        ("val", "val valid Validation val_set VAL dev dev-set val2017 validation_data valset"),
        ("test", "test Testing test_set testset TEST eval evaluation Test-Data hold-out test2017"),
        ("", "cup trains tester latest contest 2023 data set images evaluations value validity developer train_cars"),
    ],
)
def test_a_folder_name_stands_for_a_split(split: str, names: str) -> None:
    assert {name: split_of_name(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    ("tops", "splits"),
    [
        ("Training Test", {"Training": "train", "Test": "test"}),
        ("train valid test extra", {"train": "train", "valid": "val", "test": "test"}),
        ("train validation", {"train": "train", "validation": "test"}),
        ("train Training test", {"train": "train", "Training": "train", "test": "test"}),
        ("train", None),
        ("val test", None),
        ("train cup", None),
    ],
)
def test_a_train_and_another_split_make_splits(tops: str, splits: dict[str, str] | None) -> None:
    result = find_split_folders([f"{top}/x/1.jpg" for top in tops.split()])
    assert (result and result.splits) == splits


def test_decisions_about_splits_are_reported() -> None:
    result = find_split_folders(["train/x/1.jpg", "Training/x/2.jpg", "dev/x/3.jpg"])
    assert result is not None
    assert result.val_is_test
    assert result.messages() == [
        "there is no test folder: dev/ serves as the test split, and there is no val split",
        "Training/, train/ together are the train split",
    ]
    assert result.outside() == "outside Training/, train/ and dev/, which this folder has"


@pytest.mark.parametrize(
    ("paths", "shared"),
    [
        ("2023/cup/1 2023/mug/1 2024/cup/2 2024/Mug/2", True),
        ("2023/cup/1 2023/mug/1 2023/pot/1 2024/cup/2 2024/mug/2", True),
        ("Fruit/Apple/1 Fruit/Pear/1 Fruit/Kiwi/1 Vegetables/Apple/1 Vegetables/Leek/1", False),
        ("Fruit/Apple/1 Vegetables/Apple/1", False),
        ("a/x/1 b/y/1 c/z/1", False),
        ("cup/1 mug/2", False),
    ],
)
def test_mostly_equal_class_names_are_a_question(paths: str, shared: bool) -> None:
    assert bool(shared_class_names(paths.split())) == shared
    if shared:
        with pytest.raises(DataError, match=r"2023/, 2024/ .*train/, val/ and test/.*merge.*ingest\.shared_class_names=keep"):
            require_distinct_classes(paths.split(), "f")
    else:
        require_distinct_classes(paths.split(), "f")


@pytest.mark.parametrize(
    ("paths", "parent"),
    [
        ("photos/train/x/1 photos/test/x/2", "photos/"),
        ("a/b/Training/x/1 a/b/valid/x/2 a/b/readme a/LICENSE notes.txt", "a/b/"),
        ("train/x/1 test/x/2", ""),
        ("photos/train/x/1 photos/test/x/2 more/y/3", None),
        ("train/train/x/1 train/test/x/2", None),
        ("photos/cup/1 photos/mug/2", None),
    ],
)
def test_splits_are_found_in_a_single_folder(paths: str, parent: str | None) -> None:
    result = find_split_folders(paths.split())
    assert (result and result.parent) == parent


def test_a_label_is_what_follows_the_split_folder() -> None:
    splits = find_split_folders(["d/train/x/1", "d/test/x/1"])
    assert splits is not None
    paths = ["d/train/x/y/1", "d/test/1", "d/other/x/1", "d/1", "1", "train/x/1"]
    assert [splits.split_and_label(path) for path in paths] == [("train", "x/y"), ("test", ""), *[("", "")] * 4]
    assert splits.messages() == ["d/ holds the splits test/, train/; its name is no part of a label"]
    assert splits.outside() == "outside d/train/ and d/test/, which this folder has"


@pytest.mark.parametrize(
    ("paths", "parents"),
    [
        ("photos/train/x/1 photos/test/x/2 more/y/3", ["photos"]),
        ("cup/train/1 cup/val/2 mug/train/3 mug/val/4", ["cup", "mug"]),
        ("toys/train/1 toys/car/2", []),
    ],
)
def test_split_folders_beside_classes_are_a_question(paths: str, parents: list[str]) -> None:
    assert folders_with_splits(paths.split()) == parents
    if parents:
        with pytest.raises(DataError, match=rf"test/ are in {'/, '.join(parents)}/, .*ingest\.source.*ingest\.shared_class_names=keep"):
            require_distinct_classes(paths.split(), "f")
    else:
        require_distinct_classes(paths.split(), "f")

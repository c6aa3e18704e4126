"""The triplet file of the original Keras scripts: any names are written and read, and wrong lines are reported."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeprank.errors import DataError
from deeprank.triplets.textfile import UNKNOWN_HINT, read_triplet_file, write_triplet_file

PATHS = [
    "x/a.jpg",
    "x/a b,c.jpg",
    'y/"quoted".jpg',
    "y/Äpfel 苹果.jpg",
    "z/line\nbreak.jpg",
    " leading.jpg",
    "z/car\rriage.jpg",
    "z/both\r\n.jpg",
]


def _frame(*triplets: tuple[int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(triplets, columns=["query", "positive", "negative"])


def test_a_line_is_query_positive_negative_without_a_header(tmp_path: Path) -> None:
    write_triplet_file(tmp_path / "t.txt", _frame((0, 3, 2), (1, 0, 3)), ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"], "in/put/")
    assert (tmp_path / "t.txt").read_text() == (
        "in/put/a/1.jpg,in/put/b/4.jpg,in/put/b/3.jpg\nin/put/a/2.jpg,in/put/a/1.jpg,in/put/b/4.jpg\n"
    )


@pytest.mark.parametrize("prefix", ["", "data", "./data/", "/", "with,comma"])
def test_any_names_are_read_as_they_were_written(tmp_path: Path, prefix: str) -> None:
    frame = _frame((0, 1, 2), (3, 4, 5), (5, 4, 0), (6, 7, 2), (0, 1, 2))
    write_triplet_file(tmp_path / "t.txt", frame, PATHS, prefix)
    assert read_triplet_file(tmp_path / "t.txt", PATHS, prefix).equals(frame)


def test_no_triplets_are_an_empty_file(tmp_path: Path) -> None:
    write_triplet_file(tmp_path / "t.txt", _frame(), PATHS)
    assert (tmp_path / "t.txt").read_bytes() == b""
    assert len(read_triplet_file(tmp_path / "t.txt", PATHS)) == 0


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"a,b,c\r\nc,b,a\r\n")
    assert read_triplet_file(tmp_path / "t.txt", ["a", "b", "c"]).to_numpy().tolist() == [[0, 1, 2], [2, 1, 0]]


def _read(tmp_path: Path, text: str | bytes, paths: list[str], prefix: str = "", train_rows: np.ndarray | None = None) -> list[list[int]]:
    (tmp_path / "t.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_triplet_file(tmp_path / "t.txt", paths, prefix, train_rows).to_numpy().tolist()


def test_a_byte_order_mark_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    text = "\ufeffa,b,c\n\n\r\nc,b,a\n\n"
    assert _read(tmp_path, text, ["a", "b", "c"]) == [[0, 1, 2], [2, 1, 0]]


@pytest.mark.parametrize("prefix", ["data", "./data/", "data/../data"])
def test_names_may_be_relative_absolute_or_with_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"x/a.jpg,data/x/b.jpg,{tmp_path}/data/y/c.jpg\n./x/a.jpg,./data/x/b.jpg,data//y/c.jpg\n"
    assert _read(tmp_path, text, ["x/a.jpg", "x/b.jpg", "y/c.jpg"], prefix) == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("folder", ["/", "/srv/my images/", "../mine/"])
def test_the_common_folder_of_all_names_is_detected(tmp_path: Path, folder: str) -> None:
    paths = ["x/a.jpg", "x/b.jpg", "y/c.jpg"]
    assert _read(tmp_path, ",".join(folder + path for path in paths), paths) == [[0, 1, 2]]


def test_a_name_with_the_same_end_is_another_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: new/x/a\.jpg is not among the images"):
        _read(tmp_path, "x/b.jpg,x/a.jpg,y/c.jpg\nnew/x/a.jpg,x/b.jpg,y/c.jpg\n", ["x/a.jpg", "x/b.jpg", "y/c.jpg"])
    with pytest.raises(DataError, match=r"line 1: other/x/b\.jpg is not among the images"):
        _read(tmp_path, "mine/x/a.jpg,other/x/b.jpg,mine/y/c.jpg\n", ["x/a.jpg", "x/b.jpg", "y/c.jpg"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\na,b\n", "line 2: 2 names instead of query,positive,negative"),
        ("a\n", "line 1: 1 name instead"),
        ("a,b,c,a\n", "line 1: 4 names"),
        ("a,b,c\nb,a,d\n", "line 2: d is not among the images"),
        ("a,b,c\n\n\nb,a,\n", "line 4: an empty name is not among the images"),
        ('a,b,"li\r\nne"\n\nb,a,d\n', "line 4: d is not among the images"),
        ('a,b,c\n"x\ny",a,b\n', "line 2: x\ny is not among the images"),
        ('a,b,c\na,"b,c\na,b,c\n', "line 2: unexpected end of data; put a name with a comma in quotes"),
        ('a,b,c\na,"b"x,c\n', "line 2: ',' expected after '\"'; put a name with a comma in quotes"),
        (b"a,b,c\na,b,\xe4.jpg\n", "line 2: \\xe4.jpg is not among the images"),
    ],
)
def test_a_wrong_line_is_reported_with_its_number(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"t.txt, {message}")):
        _read(tmp_path, text, ["a", "b", "c", "li\r\nne"])


def test_the_first_few_wrong_lines_are_reported_in_order(tmp_path: Path) -> None:
    lines = ["a,b,c", "a,b", "a,b,d", *["a,b,c"] * 10, "a", *["a,e,b"] * 9]
    with pytest.raises(DataError) as error:
        _read(tmp_path, "\n".join(lines), ["a", "b", "c"])
    assert re.findall(r"line (\d+)", str(error.value)) == ["2", "3", "14", "15", "16"]
    assert "and 7 more lines" in str(error.value)
    assert str(error.value).endswith(UNKNOWN_HINT)


def test_all_three_images_must_be_in_the_train_rows(tmp_path: Path) -> None:
    assert _read(tmp_path, "a,b,c\n", ["a", "b", "c", "d"], train_rows=np.array([0, 1, 2])) == [[0, 1, 2]]
    message = r"line 2: d is not in the train split\nline 3: e is not among the images\n.*\nImages of val and test are kept for evaluation"
    with pytest.raises(DataError, match=message):
        _read(tmp_path, "a,b,c\na,b,d\ne,a,b\n", ["a", "b", "c", "d"], train_rows=np.array([0, 1, 2]))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file"):
        read_triplet_file(tmp_path / "none.txt", ["a"])

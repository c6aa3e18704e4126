"""The seed's triplet file: three names a line, whatever the names are."""

from pathlib import Path

import pandas as pd
import pytest

from deeprank.errors import DataError
from deeprank.triplets.textfile import read_triplet_file, write_triplet_file

PATHS = ["x/a.jpg", "x/a b,c.jpg", 'y/"quoted".jpg', "y/Äpfel 苹果.jpg", "z/line\nbreak.jpg", " leading.jpg"]


def _frame(*triplets: tuple[int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(triplets, columns=["query", "positive", "negative"])


def test_a_line_is_query_positive_negative_without_a_header(tmp_path: Path) -> None:
    write_triplet_file(tmp_path / "t.txt", _frame((0, 3, 2), (1, 0, 3)), ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"], "in/put/")
    assert (tmp_path / "t.txt").read_text() == (
        "in/put/a/1.jpg,in/put/b/4.jpg,in/put/b/3.jpg\nin/put/a/2.jpg,in/put/a/1.jpg,in/put/b/4.jpg\n"
    )


@pytest.mark.parametrize("prefix", ["", "data", "./data/", "/", "with,comma"])
def test_what_was_written_is_read_again_whatever_the_names(tmp_path: Path, prefix: str) -> None:
    frame = _frame((0, 1, 2), (3, 4, 5), (5, 4, 0), (0, 1, 2))
    write_triplet_file(tmp_path / "t.txt", frame, PATHS, prefix)
    assert read_triplet_file(tmp_path / "t.txt", PATHS, prefix).equals(frame)


def test_no_triplets_are_an_empty_file(tmp_path: Path) -> None:
    write_triplet_file(tmp_path / "t.txt", _frame(), PATHS)
    assert (tmp_path / "t.txt").read_bytes() == b""
    assert len(read_triplet_file(tmp_path / "t.txt", PATHS)) == 0


def test_lines_that_end_as_on_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"a,b,c\r\nc,b,a\r\n")
    assert read_triplet_file(tmp_path / "t.txt", ["a", "b", "c"]).to_numpy().tolist() == [[0, 1, 2], [2, 1, 0]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b,c\na,b\n", "line 2: 2 names instead of query,positive,negative"),
        ("a,b,c,a\n", "line 1: 4 names"),
        ("a,b,c\nb,a,d\n", "line 2: d is not among the photographs"),
    ],
)
def test_a_wrong_line_is_named_and_shifts_nothing(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(DataError, match=rf"t\.txt, {complaint}"):
        read_triplet_file(tmp_path / "t.txt", ["a", "b", "c"])

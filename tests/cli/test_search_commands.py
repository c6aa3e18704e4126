"""Arguments of the commands that embed images."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_a_missing_model_is_named(tmp_path: Path, deeprank: Run) -> None:
    code, _, err = deeprank("distance", "-m", str(tmp_path / "none"), "-i1", "a.jpg", "-i2", "b.jpg")
    assert code == 1
    assert f"{tmp_path / 'none'} is not a folder" in err


@pytest.mark.parametrize("words", [("--shard", "5"), ("--shard", "a/b")])
def test_a_wrong_shard_is_refused(deeprank: Run, words: tuple[str, str]) -> None:
    code, _, err = deeprank("embed", "-m", "x", "--catalogue", "y", *words)
    assert code == 1
    assert f"{' '.join(words)}: expected N/OF, e.g. 1/4" in err


def test_a_search_without_a_query_is_refused(deeprank: Run) -> None:
    code, _, err = deeprank("search", "-m", "x")
    assert code == 1
    assert "no query: name an image file, or an image of the catalogue with --id" in err

"""`deeprank triplets`."""

import json
import shutil
from pathlib import Path

import pytest

from deeprank.data.synthetic import write_synthetic
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "photo graphs, mine"
    write_synthetic(folder, classes=3, images=4, size=64)
    return folder


def triplet_options(folder: Path, out: Path) -> list[str]:
    return ["--input_directory", str(folder), "--output_directory", str(out), "--num_pos_images", "2", "--num_neg_images", "3"]


def test_triplets_writes_the_file_of_the_original_scripts(folder: Path, tmp_path: Path, deeprank: Run) -> None:
    code, out, _ = deeprank("triplets", *triplet_options(folder, tmp_path / "new"), "--json")
    result = json.loads(out)
    assert code == 0
    assert result.pop("file") == str(tmp_path / "new" / "triplets.txt")
    assert result == {"triplets": 3 * 4 * 2 * 3, "images": 12, "classes": 3, "queries_without_positive": 0}
    lines = (tmp_path / "new" / "triplets.txt").read_text().splitlines()
    assert len(lines) == 3 * 4 * 2 * 3
    assert all(name.startswith(str(folder)) for name in lines[0].strip('"').split('","'))


def test_an_output_directory_that_is_a_file_is_named(folder: Path, tmp_path: Path, deeprank: Run) -> None:
    (tmp_path / "taken").write_text("")
    code, _, err = deeprank("triplets", *triplet_options(folder, tmp_path / "taken"))
    assert code != 0
    assert f"--output_directory {tmp_path / 'taken'}: cannot be created" in " ".join(err.split())


def test_triplets_warns_about_images_without_a_positive(folder: Path, tmp_path: Path, deeprank: Run) -> None:
    shutil.copytree(folder, tmp_path / "in")
    images = sorted((tmp_path / "in").rglob("*.jpg"))
    only_image = images[0].parent.parent / "singleton" / "one.jpg"
    only_image.parent.mkdir()
    images[0].rename(only_image)
    code, out, err = deeprank("triplets", *triplet_options(tmp_path / "in", tmp_path / "out"), "--json")
    assert code == 0
    assert json.loads(out)["queries_without_positive"] == 1
    assert "1 of 12 images have no positive: they are the only image of their class" in err


def test_triplets_depend_on_the_seed_only(folder: Path, tmp_path: Path, deeprank: Run) -> None:
    texts = []
    for number, seed in enumerate(("1", "1", "2")):
        deeprank("triplets", *triplet_options(folder, tmp_path / str(number)), "--seed", seed)
        texts.append((tmp_path / str(number) / "triplets.txt").read_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_a_number_below_one_is_refused(folder: Path, tmp_path: Path, deeprank: Run, count: str) -> None:
    options = triplet_options(folder, tmp_path)
    options[options.index("--num_pos_images") + 1] = count
    code, _, err = deeprank("triplets", *options)
    assert code != 0
    assert "num_pos_images" in err


def test_a_missing_input_folder_is_named(tmp_path: Path, deeprank: Run) -> None:
    code, _, err = deeprank("triplets", *triplet_options(tmp_path / "nowhere", tmp_path))
    assert code == 1
    assert f"{tmp_path / 'nowhere'} does not exist" in err

import json
import shutil
from pathlib import Path

import pytest
import yaml

from deeprank.cli import _merged, main
from deeprank.data.synthetic import write_synthetic
from deeprank.errors import ConfigError


def deeprank(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, standard output and standard error."""
    monkeypatch.setattr("sys.argv", ["deeprank", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "photo graphs, mine"
    write_synthetic(folder, classes=3, images=4, size=64)
    return folder


def triplet_options(folder: Path, out: Path) -> list[str]:
    return ["--input_directory", str(folder), "--output_directory", str(out), "--num_pos_images", "2", "--num_neg_images", "3"]


def test_triplets_writes_the_seeds_file_with_its_four_options(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    code, out, _ = deeprank(monkeypatch, capsys, "triplets", *triplet_options(folder, tmp_path / "new"), "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts.pop("file") == str(tmp_path / "new" / "triplets.txt")
    assert facts == {"triplets": 3 * 4 * 2 * 3, "images": 12, "classes": 3, "queries_without_positive": 0}
    lines = (tmp_path / "new" / "triplets.txt").read_text().splitlines()
    assert len(lines) == 3 * 4 * 2 * 3
    assert all(name.startswith(str(folder)) for name in lines[0].strip('"').split('","'))


def test_an_output_directory_that_is_a_file_is_named(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "taken").write_text("")
    code, _, err = deeprank(monkeypatch, capsys, "triplets", *triplet_options(folder, tmp_path / "taken"))
    assert code != 0
    assert f"--output_directory {tmp_path / 'taken'}: cannot be made" in " ".join(err.split())


def test_images_alone_in_their_class_are_told(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(folder, tmp_path / "in")
    images = sorted((tmp_path / "in").rglob("*.jpg"))
    rows_without_positive = images[0].parent.parent / "lonely" / "one.jpg"
    rows_without_positive.parent.mkdir()
    images[0].rename(rows_without_positive)
    code, out, err = deeprank(monkeypatch, capsys, "triplets", *triplet_options(tmp_path / "in", tmp_path / "out"), "--json")
    assert code == 0
    assert json.loads(out)["queries_without_positive"] == 1
    assert "1 of 12 images are alone in their class: they have no positive" in err


def test_triplets_are_the_same_for_the_same_seed_and_others_for_another(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    texts = []
    for number, seed in enumerate(("1", "1", "2")):
        deeprank(monkeypatch, capsys, "triplets", *triplet_options(folder, tmp_path / str(number)), "--seed", seed)
        texts.append((tmp_path / str(number) / "triplets.txt").read_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_a_number_below_one_ends_the_command(folder: Path, tmp_path: Path, monkeypatch, capsys, count: str) -> None:
    options = triplet_options(folder, tmp_path)
    options[options.index("--num_pos_images") + 1] = count
    code, _, err = deeprank(monkeypatch, capsys, "triplets", *options)
    assert code != 0
    assert "num_pos_images" in err


def test_a_missing_input_folder_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    code, _, err = deeprank(monkeypatch, capsys, "triplets", *triplet_options(tmp_path / "nowhere", tmp_path))
    assert code == 1
    assert f"{tmp_path / 'nowhere'} does not exist" in err


def test_distance_names_a_model_that_is_not_there(tmp_path: Path, monkeypatch, capsys) -> None:
    code, _, err = deeprank(monkeypatch, capsys, "distance", "-m", str(tmp_path / "none"), "-i1", "a.jpg", "-i2", "b.jpg")
    assert code == 1
    assert f"{tmp_path / 'none'} is no folder" in err


@pytest.mark.parametrize("command", ["run", "triplets", "distance", "search", "evaluate", "models", "render", "summary"])
def test_every_command_explains_itself(monkeypatch, capsys, command: str) -> None:
    code, out, _ = deeprank(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert "Usage: deeprank" in out


def test_set_merges_values_of_their_yaml_type_into_the_parameters(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("parameters: {train: {epochs: 8, seed: 1}}\n")
    out = tmp_path / "out"
    out.mkdir()
    merged = yaml.safe_load(_merged(config, ["train.epochs=3", "ingest.source=a=b", "train.augment.flip=0.0"], out).read_text())
    assert merged == {"parameters": {"train": {"epochs": 3, "seed": 1, "augment": {"flip": 0.0}}, "ingest": {"source": "a=b"}}}


@pytest.mark.parametrize("setting", ["train.epochs", "=3", "train.epochs.more=3"])
def test_a_malformed_set_is_refused(tmp_path: Path, setting: str) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("parameters: {train: {epochs: 8}}\n")
    with pytest.raises(ConfigError, match="--set"):
        _merged(config, [setting], tmp_path)

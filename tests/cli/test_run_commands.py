"""`deeprank run --set` merges settings into the config."""

from inspect import signature
from pathlib import Path

import pytest
import yaml

from deeprank.cli.run_commands import training_settings, write_with_settings
from deeprank.errors import ConfigError
from pipelines.training import training


def test_set_merges_yaml_values_into_the_parameters(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("parameters: {train: {epochs: 8, seed: 1}}\n")
    out = tmp_path / "out"
    out.mkdir()
    written = write_with_settings(config, ["train.epochs=3", "ingest.source=a=b", "train.augment.flip=0.0"], out)
    merged = {"parameters": {"train": {"epochs": 3, "seed": 1, "augment": {"flip": 0.0}}, "ingest": {"source": "a=b"}}}
    assert yaml.safe_load(written.read_text()) == merged


def test_set_keeps_the_values_of_the_extended_config(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("parameters: {train: {epochs: 8, seed: 1}}\n")
    config = tmp_path / "a.yaml"
    config.write_text("extends: base.yaml\n")
    out = tmp_path / "out"
    out.mkdir()
    written = write_with_settings(config, ["train.epochs=3"], out)
    assert yaml.safe_load(written.read_text()) == {"parameters": {"train": {"epochs": 3, "seed": 1}}}


@pytest.mark.parametrize("setting", ["train.epochs", "=3", "train.epochs.more=3"])
def test_a_malformed_set_is_refused(tmp_path: Path, setting: str) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("parameters: {train: {epochs: 8}}\n")
    with pytest.raises(ConfigError, match="--set"):
        write_with_settings(config, [setting], tmp_path)


def values_of(tmp_path: Path, *settings: str) -> dict[str, object]:
    """Return the parameters that a config without any has after --set."""
    config = tmp_path / "a.yaml"
    config.write_text("parameters:\n")
    (tmp_path / "out").mkdir(exist_ok=True)
    return yaml.safe_load(write_with_settings(config, list(settings), tmp_path / "out").read_text())["parameters"]


TEXTS = [
    "/data/photos #2",
    "My: photos",
    "[x]",
    "[x",
    "{a",
    "@data",
    "*",
    "*.jpg",
    "&a",
    "!x",
    "%TEMP%",
    "null",
    "~",
    "",
    "2024",
    "1e3",
    "yes",
]


@pytest.mark.parametrize(
    "text", [*TEXTS, "2024-01-01", "'quoted'", " spaces ", "a=b", "- x", "|", "line\nbreak", "\u00e4 \U0001f34e", "\udce9"]
)
def test_a_text_setting_is_the_text_as_it_is(tmp_path: Path, text: str) -> None:
    assert values_of(tmp_path, f"ingest.source={text}")["ingest"]["source"] == text


def test_other_settings_are_yaml(tmp_path: Path) -> None:
    settings = [
        "train.epochs=3",
        "train.augment.flip=0.5",
        "train.model.multiscale=true",
        "ingest.exclude=['*.tmp', b]",
        "ingest.version=null",
    ]
    assert values_of(tmp_path, *settings, "train.model.backbone=resnet18", "index.search_params=auto") == {
        "train": {"epochs": 3, "augment": {"flip": 0.5}, "model": {"multiscale": True, "backbone": "resnet18"}},
        "ingest": {"exclude": ["*.tmp", "b"], "version": None},
        "index": {"search_params": "auto"},
    }


@pytest.mark.parametrize("setting", ["ingest.exclude=*.tmp", "train.epochs=[3", "ingest={source: a: b}"])
def test_a_value_that_is_not_yaml_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError) as error:
        values_of(tmp_path, setting)
    assert str(error.value) == f"--set {setting}: the value is not valid YAML; quote texts in a list, e.g. ['*.tmp', 'a: b']"


def test_the_sections_are_those_of_the_training_pipeline() -> None:
    assert training_settings() == {name: parameter.annotation for name, parameter in signature(training.entrypoint).parameters.items()}

"""`deeprank run --set` merges settings into the config."""

from pathlib import Path

import pytest
import yaml

from deeprank.cli.run_commands import write_with_settings
from deeprank.errors import ConfigError


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

"""A loaded bundle is the saved model; a damaged one is an error that names the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from deeprank.checksums import hash_file, write_manifest
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import ModelSettings, create_model
from deeprank.models.preprocessing import Preprocessing
from tests.models.embedding import embed_jpegs

FILES = ["config.json", "model.safetensors", "preprocessing.json"]


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy to damage."""
    return Bundle(Path(shutil.copytree(bundle.folder, tmp_path / "copy")))


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=16, pretrained_share=0),
        ModelSettings(backbone="test_resnet", weights="none", embedding_dim=0, pretrained_share=0),
        ModelSettings(embedding_dim=8),
    ],
    ids=["none", "no head", "package"],
)
def test_a_loaded_bundle_embeds_as_the_saved_model(settings: ModelSettings, catalogue: Catalogue, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, preprocessing = create_model(settings).eval(), Preprocessing(size=48)
    saved = Bundle.save(tmp_path / "b", model, settings, preprocessing, {"catalogue": "abc"})
    loaded, loaded_preprocessing = Bundle(tmp_path / "b").load()
    assert not loaded.training
    jpegs = catalogue.read_jpegs([0, 20, 40])
    assert np.array_equal(embed_jpegs(loaded, loaded_preprocessing, jpegs), embed_jpegs(model, preprocessing, jpegs))
    assert loaded_preprocessing == preprocessing
    assert saved.config["facts"] == {"catalogue": "abc"}
    assert ModelSettings.model_validate(saved.config["initial_model"]) == settings
    assert saved.config["embedding_dim"] == model.embedding_dim


def test_a_bundle_is_three_files_and_no_pickle(bundle: Bundle) -> None:
    assert sorted(file.name for file in bundle.folder.iterdir()) == FILES
    assert (bundle.folder / "model.safetensors").read_bytes()[:2] != b"PK"


def test_the_hash_of_the_weights_identifies_the_model(bundle: Bundle, tmp_path: Path) -> None:
    model, preprocessing = bundle.load()
    settings = ModelSettings.model_validate(bundle.config["model"])
    again = Bundle.save(tmp_path / "again", model, settings, preprocessing, {})
    assert bundle.weights_hash == hash_file(bundle.folder / "model.safetensors") == again.weights_hash
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert Bundle.save(tmp_path / "other", model, settings, preprocessing, {}).weights_hash != bundle.weights_hash


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("position", [0.1, 0.5, 1.0])
def test_one_flipped_bit_is_detected(copy: Bundle, name: str, position: float) -> None:
    file = copy.folder / name
    data = bytearray(file.read_bytes())
    data[int(position * (len(data) - 1))] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=f"{file} is damaged"):
        copy.load()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_reported(copy: Bundle, name: str) -> None:
    (copy.folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        copy.load()


def test_a_truncated_config_is_reported(copy: Bundle) -> None:
    (copy.folder / "config.json").write_text('{"format": 1,')
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        copy.load()


def test_an_older_bundle_is_refused_with_advice(copy: Bundle) -> None:
    config = json.loads((copy.folder / "config.json").read_text())
    (copy.folder / "config.json").write_text(json.dumps(config | {"format": 3}))
    with pytest.raises(ModelError, match=r"config\.json: format 3 is not the format 5 that this version reads; train again"):
        copy.load()


def test_settings_that_do_not_fit_the_weights_are_refused(copy: Bundle) -> None:
    config = json.loads((copy.folder / "config.json").read_text())
    config["model"]["embedding_dim"] = 8
    del config["checksum"]
    write_manifest(copy.folder / "config.json", config)
    with pytest.raises(ModelError, match="does not fit this version of deeprank"):
        copy.load()


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"{tmp_path} is no model bundle"):
        Bundle(tmp_path).load()

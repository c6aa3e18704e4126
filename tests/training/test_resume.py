"""A training that was killed goes on where it was, and ends where it would have ended."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.synthetic import write_synthetic
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import ModelSettings
from deeprank.reporting import Record
from deeprank.training.fit import TrainSettings, fit
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets

SETTINGS = TrainSettings(
    model=ModelSettings(weights="none"),
    precision="fp32",
    epochs=4,
    train_image_sizes=(32,),
    eval_image_size=32,
    classes_per_batch=3,
    images_per_class=2,
)
# Trains as the tests do and kills itself, as an operator or the kernel would, in the middle of the third epoch.
KILLED = """
import os, signal, sys
from pathlib import Path
import deeprank.training.fit as fit
from deeprank.data.catalogue import Catalogue
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, sample_triplets

light = fit.color_jitter
def color_jitter(*arguments):
    if Path(sys.argv[3]).exists() and len(list(Path(sys.argv[3]).iterdir())) and record.points[-1].step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return light(*arguments)
fit.color_jitter = color_jitter

catalogue = Catalogue(sys.argv[1], 1)
record = Record(Path(sys.argv[2]) / "record")
settings = fit.TrainSettings.model_validate_json(sys.argv[4])
triplets = sample_triplets(catalogue.frame, SampleSettings(), catalogue.fingerprint)
fit.fit(catalogue, triplets, settings, Path(sys.argv[2]), record, Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalogue, Triplets]:
    folder = tmp_path_factory.mktemp("resume")
    write_synthetic(folder / "images", classes=6, images=8, size=64)
    catalogue, _ = ingest(folder / "images", IngestSettings(), str(folder / "catalogues"), progress=False)
    return catalogue, sample_triplets(catalogue.frame, SampleSettings(), catalogue.fingerprint)


# Dropout draws from torch's own generator, which goes on from where it was only if it is told to.
@pytest.mark.parametrize("model", [{}, {"hidden_dims": (8,), "dropout": 0.5}], ids=["plain", "dropout"])
def test_a_training_killed_by_sigkill_ends_with_the_weights_of_an_unbroken_one(
    data: tuple[Catalogue, Triplets], tmp_path: Path, model_settings: dict[str, Any]
) -> None:
    catalogue, triplets = data
    checkpoints = tmp_path / "checkpoints"
    settings = SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update=model_settings)})
    words = [catalogue.uri, str(tmp_path / "killed"), str(checkpoints), settings.model_dump_json()]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "killed" / "config.json").exists()
    assert len(list(checkpoints.glob("*.ckpt"))) == 1

    record = Record(tmp_path / "record")
    resumed = fit(catalogue, triplets, settings, tmp_path / "killed", record, checkpoints)
    unbroken = fit(catalogue, triplets, settings, tmp_path / "unbroken", Record(tmp_path / "other"))
    assert resumed.weights_hash == unbroken.weights_hash
    assert [point.step for point in record.points if point.name == "train.loss"] == [1, 2, 3, 4]
    assert not list(checkpoints.iterdir())


def test_a_training_that_had_stopped_early_and_was_killed_before_it_saved_trains_no_further(
    data: tuple[Catalogue, Triplets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, triplets = data
    settings = SETTINGS.model_copy(update={"epochs": 9, "early_stopping_patience": 1, "learning_rate": 1e-9, "head_learning_rate": 1e-9})
    unbroken = fit(catalogue, triplets, settings, tmp_path / "unbroken", Record(tmp_path / "other"))
    assert int(unbroken.facts["epochs"]) < 9

    def killed(*_: object) -> Bundle:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Bundle, "save", killed)
        fit(catalogue, triplets, settings, tmp_path / "killed", Record(tmp_path / "record"), tmp_path / "checkpoints")
    resumed = fit(catalogue, triplets, settings, tmp_path / "killed", Record(tmp_path / "again"), tmp_path / "checkpoints")
    assert resumed.facts["epochs"] == unbroken.facts["epochs"]
    assert resumed.weights_hash == unbroken.weights_hash


def test_other_settings_do_not_go_on_from_a_checkpoint(data: tuple[Catalogue, Triplets], tmp_path: Path) -> None:
    catalogue, triplets = data

    class Broken(Record):
        def metric(self, name: str, value: float, step: int | None = None) -> None:
            if step == 2:
                raise RuntimeError("broken off")
            super().metric(name, value, step)

    with pytest.raises(RuntimeError, match="broken off"):
        fit(catalogue, triplets, SETTINGS, tmp_path / "a", Broken(tmp_path / "r1"), tmp_path / "checkpoints")
    other = SETTINGS.model_copy(update={"seed": 1, "epochs": 1})
    fresh = fit(catalogue, triplets, other, tmp_path / "b", Record(tmp_path / "r2"))
    assert (
        fit(catalogue, triplets, other, tmp_path / "c", Record(tmp_path / "r3"), tmp_path / "checkpoints").weights_hash
        == fresh.weights_hash
    )
    assert len(list((tmp_path / "checkpoints").glob("*.ckpt"))) == 1

"""A killed training is resumed, and ends with the weights of a training without interruption."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deeprank.data import object_store
from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.object_store import set_storage_options
from deeprank.data.synthetic import write_synthetic
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import ModelSettings
from deeprank.reporting import Record
from deeprank.training.fit import fit
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets
from tests.object_store import running_object_store

SETTINGS = TrainSettings(
    model=ModelSettings(weights="none"),
    precision="fp32",
    epochs=4,
    train_image_sizes=(32,),
    eval_image_size=32,
    classes_per_batch=3,
    images_per_class=2,
)
# Trains as the tests do, and kills itself in the middle of the third epoch, as an operator or the kernel could.
KILLED_TRAINING = """
import os, signal, sys
from pathlib import Path
import deeprank.training.module as module
from deeprank.data.catalogue import Catalogue
from deeprank.reporting import Record
from deeprank.training.fit import fit
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import SampleSettings, sample_triplets

original_jitter = module.color_jitter
def color_jitter(*arguments):
    if Path(sys.argv[3]).exists() and len(list(Path(sys.argv[3]).iterdir())) and record.points[-1].step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return original_jitter(*arguments)
module.color_jitter = color_jitter

catalogue = Catalogue(sys.argv[1], 1)
record = Record(Path(sys.argv[2]) / "record")
settings = TrainSettings.model_validate_json(sys.argv[4])
triplets = sample_triplets(catalogue.frame, SampleSettings(), catalogue.fingerprint)
fit(catalogue, triplets, settings, Path(sys.argv[2]), record, Path(sys.argv[3]))
"""


class InterruptedRecord(Record):
    """A record that ends a training with an error in an epoch."""

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        if step == 3:
            raise RuntimeError("interrupted")
        super().metric(name, value, step)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalogue, Triplets]:
    folder = tmp_path_factory.mktemp("resume")
    write_synthetic(folder / "images", classes=6, images=8, size=64)
    catalogue, _ = ingest(folder / "images", IngestSettings(), str(folder / "catalogues"), progress=False)
    return catalogue, sample_triplets(catalogue.frame, SampleSettings(), catalogue.fingerprint)


# Dropout draws from torch's global generator, whose state no checkpoint has.
@pytest.mark.parametrize("changed", [{}, {"hidden_dims": (8,), "dropout": 0.5}], ids=["plain", "dropout"])
def test_a_killed_training_is_resumed_with_the_same_weights(
    data: tuple[Catalogue, Triplets], tmp_path: Path, changed: dict[str, Any]
) -> None:
    catalogue, triplets = data
    checkpoints = tmp_path / "checkpoints"
    settings = SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update=changed)})
    arguments = [catalogue.uri, str(tmp_path / "killed"), str(checkpoints), settings.model_dump_json()]
    killed = subprocess.run([sys.executable, "-c", KILLED_TRAINING, *arguments], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "killed" / "config.json").exists()
    assert len(list(checkpoints.glob("*.ckpt"))) == 1

    record = Record(tmp_path / "record")
    resumed = fit(catalogue, triplets, settings, tmp_path / "killed", record, checkpoints)
    uninterrupted = fit(catalogue, triplets, settings, tmp_path / "uninterrupted", Record(tmp_path / "other"))
    assert resumed.weights_hash == uninterrupted.weights_hash
    assert [point.step for point in record.points if point.name == "train.loss"] == [1, 2, 3, 4]
    assert not list(checkpoints.iterdir())


@pytest.mark.parametrize(
    "scheduler",
    [
        {"name": "StepLR", "kwargs": {"step_size": 1, "gamma": 0.5}, "interval": "epoch"},
        {"name": "ReduceLROnPlateau", "kwargs": {"patience": 0, "threshold": 2.0}, "interval": "epoch"},
        {"name": "CosineLRScheduler", "kwargs": {"warmup_t": 1}, "interval": "epoch"},
        {"name": "PolyLRScheduler"},
    ],
    ids=lambda scheduler: scheduler["name"],
)
def test_a_resumed_training_continues_its_schedule(data: tuple[Catalogue, Triplets], tmp_path: Path, scheduler: dict[str, Any]) -> None:
    catalogue, triplets = data
    settings = TrainSettings.model_validate(SETTINGS.model_dump() | {"scheduler": scheduler})
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(catalogue, triplets, settings, tmp_path / "a", InterruptedRecord(tmp_path / "r1"), tmp_path / "checkpoints")
    records = [Record(tmp_path / "r2"), Record(tmp_path / "r3")]
    resumed = fit(catalogue, triplets, settings, tmp_path / "a", records[0], tmp_path / "checkpoints")
    uninterrupted = fit(catalogue, triplets, settings, tmp_path / "b", records[1])
    rates, expected = ([point for point in record.points if point.name == "train.learning_rate"] for record in records)
    assert rates == expected
    assert resumed.weights_hash == uninterrupted.weights_hash


def test_a_stopped_training_is_not_trained_further_on_resume(
    data: tuple[Catalogue, Triplets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, triplets = data
    settings = SETTINGS.model_copy(update={"epochs": 9, "early_stopping_patience": 1, "learning_rate": 1e-9, "head_learning_rate": 1e-9})
    uninterrupted = fit(catalogue, triplets, settings, tmp_path / "uninterrupted", Record(tmp_path / "other"))
    assert int(uninterrupted.facts["epochs"]) < 9
    _interrupt_before_saving(data, settings, tmp_path, monkeypatch)
    resumed = fit(catalogue, triplets, settings, tmp_path / "killed", Record(tmp_path / "again"), tmp_path / "checkpoints")
    assert resumed.facts["epochs"] == uninterrupted.facts["epochs"]
    assert resumed.weights_hash == uninterrupted.weights_hash


def test_a_complete_training_is_saved_on_resume(data: tuple[Catalogue, Triplets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, triplets = data
    settings = SETTINGS.model_copy(update={"epochs": 2})
    uninterrupted = fit(catalogue, triplets, settings, tmp_path / "uninterrupted", Record(tmp_path / "other"))
    _interrupt_before_saving(data, settings, tmp_path, monkeypatch)
    resumed = fit(catalogue, triplets, settings, tmp_path / "killed", Record(tmp_path / "again"), tmp_path / "checkpoints")
    assert resumed.weights_hash == uninterrupted.weights_hash
    assert not list((tmp_path / "checkpoints").iterdir())


def _interrupt_before_saving(
    data: tuple[Catalogue, Triplets], settings: TrainSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train, and interrupt after the last epoch, before the bundle is saved."""

    def interrupt(*_: object) -> Bundle:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Bundle, "save", interrupt)
        fit(*data, settings, folder / "killed", Record(folder / "record"), folder / "checkpoints")


def test_other_settings_do_not_use_the_checkpoint(data: tuple[Catalogue, Triplets], tmp_path: Path) -> None:
    catalogue, triplets = data
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(catalogue, triplets, SETTINGS, tmp_path / "a", InterruptedRecord(tmp_path / "r1"), tmp_path / "checkpoints")
    other = SETTINGS.model_copy(update={"seed": 1, "epochs": 1})
    without = fit(catalogue, triplets, other, tmp_path / "b", Record(tmp_path / "r2"))
    with_checkpoints = fit(catalogue, triplets, other, tmp_path / "c", Record(tmp_path / "r3"), tmp_path / "checkpoints")
    assert with_checkpoints.weights_hash == without.weights_hash
    assert len(list((tmp_path / "checkpoints").glob("*.ckpt"))) == 1


def test_a_training_goes_on_from_a_checkpoint_in_an_object_store(
    data: tuple[Catalogue, Triplets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, triplets = data
    monkeypatch.setattr(object_store, "_options", {})
    with running_object_store() as server:
        set_storage_options(server.uri, server.options)
        checkpoints, records = f"{server.uri}/checkpoints", [Record(tmp_path / "r2"), Record(tmp_path / "r3")]
        interrupted = InterruptedRecord(tmp_path / "r1")
        with pytest.raises(RuntimeError, match="interrupted"):
            fit(catalogue, triplets, SETTINGS, tmp_path / "a", interrupted, checkpoints)
        (key,) = server.list_keys()
        assert key.startswith("checkpoints/") and key.endswith(".ckpt")
        resumed = fit(catalogue, triplets, SETTINGS, tmp_path / "a", records[0], checkpoints)
        assert server.list_keys() == []
    uninterrupted = fit(catalogue, triplets, SETTINGS, tmp_path / "b", records[1])
    assert resumed.weights_hash == uninterrupted.weights_hash
    # The measured speed of an epoch is that of the first process.
    speeds = [[point.value for point in record.points if point.name == "train.images_per_second"] for record in (interrupted, records[0])]
    assert speeds[0] and speeds[1][: len(speeds[0]) - 1] == speeds[0][:-1]

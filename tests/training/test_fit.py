"""Training on synthetic images with a tiny model and known random weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ConfigError, DataError, TrainingError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings, SearchModel
from deeprank.reporting import Record
from deeprank.training.augmentation import AugmentSettings, random_affine_crop
from deeprank.training.fit import fit, training_key
from deeprank.training.losses import LossSettings
from deeprank.training.settings import TrainSettings
from deeprank.training.validation import validate
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets
from tests.training.loss_examples import hinge_settings
from tests.training.small_training import SMALL, fit_small


@dataclass(frozen=True)
class Trained:
    bundle: Bundle
    record: Record
    settings: TrainSettings
    initial_weights: dict[str, torch.Tensor]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The weights after the training, with the names of `initial_weights`."""
        return load_file(self.bundle.folder / "model.safetensors")


@pytest.fixture(scope="module")
def trained(catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two epochs with the stem and the first block frozen, run in a working folder that must stay empty."""
    folder = tmp_path_factory.mktemp("trained")
    settings = TrainSettings(**SMALL | {"epochs": 2}, model=model_settings.model_copy(update={"frozen_stages": 2}))
    record = Record(folder / "record")
    (folder / "working_folder").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "working_folder")
        bundle = fit(catalogue, triplets, settings, folder / "bundle", record)
    assert list((folder / "working_folder").iterdir()) == []
    return Trained(bundle, record, settings, EmbeddingModel(settings.model).state_dict())


def test_each_epoch_reports_training_and_validation_metrics(trained: Trained) -> None:
    names = {"train.loss", "train.images_per_second", "train.learning_rate", "val.recall_at_1", "val.triplet_accuracy"}
    points = trained.record.points
    assert sorted((point.name, point.step) for point in points) == sorted((name, epoch) for name in names for epoch in (1, 2))
    assert all(np.isfinite(point.value) for point in points)
    assert all(0 <= point.value <= 1 for point in points if point.name.startswith("val."))


def test_the_last_validation_is_that_of_the_bundle(trained: Trained, catalogue: Catalogue, triplets: Triplets) -> None:
    last = {point.name: point.value for point in trained.record.points if point.step == 2}
    metrics = validate(*trained.bundle.load(), catalogue, triplets)
    assert {f"val.{name}": value for name, value in metrics.items()} == {k: v for k, v in last.items() if k.startswith("val.")}


def test_the_bundle_keeps_facts_about_the_training(trained: Trained, catalogue: Catalogue) -> None:
    facts = {"catalogue": catalogue.fingerprint, "losses": "CosineSoftmax, SupConLoss", "epochs": "2", "seed": "0", "bf16": "none"}
    facts |= {"images": "16", "classes": "6", "init": "pretrained"}
    assert trained.bundle.config["facts"] == facts
    assert ModelSettings.model_validate(trained.bundle.config["initial_model"]) == trained.settings.model
    model, preprocessing = trained.bundle.load()
    assert (model.embedding_dim, preprocessing.size) == (16, 64)


def test_only_trainable_stages_change_their_weights(trained: Trained) -> None:
    names = [name for name, _ in trained.bundle.load()[0].named_parameters()]
    assert any(name.startswith("frozen.") for name in names)
    for name in names:
        assert torch.equal(trained.weights[name], trained.initial_weights[name]) == name.startswith("frozen."), name


def test_the_seed_determines_the_weights(trained: Trained, catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    again = fit(catalogue, triplets, trained.settings, tmp_path / "again", Record(tmp_path))
    other = fit(catalogue, triplets, trained.settings.model_copy(update={"seed": 1}), tmp_path / "other", Record(tmp_path))
    assert again.weights_hash == trained.bundle.weights_hash
    assert other.weights_hash != trained.bundle.weights_hash


def test_training_lowers_the_loss(catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path) -> None:
    no_change = AugmentSettings(crop_scale=1, crop_ratio=1, flip=0, rotation=0, brightness=0, contrast=0, saturation=0, channel_gain=0)
    settings = {"epochs": 12, "train_image_sizes": (32,), "eval_image_size": 32, "learning_rate": 3e-3, "classes_per_batch": 6}
    _, points = fit_small(catalogue, triplets, tmp_path, model=model_settings, augment=no_change, **settings)
    losses = [point.value for point in points if point.name == "train.loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("loss", [hinge_settings(), LossSettings(name="ProxyAnchorLoss")], ids=["hinge", "proxies"])
def test_other_losses_train_too(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, loss: LossSettings
) -> None:
    bundle, points = fit_small(catalogue, triplets, tmp_path, model=model_settings, losses=(loss,))
    assert all(np.isfinite(point.value) for point in points)
    assert all(value.isfinite().all() for value in bundle.load()[0].state_dict().values())


def test_several_losses_and_sizes_train_together(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    losses = (LossSettings(), hinge_settings(weight=0.5))
    bundle, points = fit_small(catalogue, triplets, tmp_path, model=model_settings, losses=losses, train_image_sizes=(32, 48), epochs=2)
    assert bundle.config["facts"]["losses"] == "SupConLoss, TripletMarginLoss"
    assert [point.step for point in points if point.name == "train.loss"] == [1, 2]


def test_with_fewer_epochs_than_sizes_the_last_sizes_are_used(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def crop_and_record(images: torch.Tensor, size: int, *others: object) -> torch.Tensor:
        sizes.append(size)
        return random_affine_crop(images, size, *others)

    monkeypatch.setattr("deeprank.training.module.random_affine_crop", crop_and_record)
    fit_small(catalogue, triplets, tmp_path, model=model_settings, train_image_sizes=(32, 48, 64), epochs=2)
    assert list(dict.fromkeys(sizes)) == [48, 64]


def test_val_images_of_singleton_classes_are_trained_on(catalogue: Catalogue, model_settings: ModelSettings, tmp_path: Path) -> None:
    frame, changed = catalogue.frame.copy(), Catalogue(catalogue.uri, catalogue.version)
    singletons = frame[frame["split"] == "val"].drop_duplicates("label").index
    frame.loc[(frame["split"] == "val") & ~frame.index.isin(singletons), "split"] = "aside"
    changed.__dict__["frame"] = frame
    triplets = sample_triplets(frame, SampleSettings(), "x")
    assert not len(triplets.in_split("val"))
    bundle, _ = fit_small(changed, triplets, tmp_path, model=model_settings, splits=("train", "val"))
    assert int(bundle.config["facts"]["images"]) == (frame["split"] == "train").sum() + len(singletons)


def test_the_averaged_weights_are_saved(trained: Trained, catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    last = fit(catalogue, triplets, trained.settings.model_copy(update={"ema_decay": 0.0}), tmp_path / "last", Record(tmp_path))
    weights = [load_file(bundle.folder / "model.safetensors") for bundle in (last, trained.bundle)]
    changes = [
        sum((w[name] - value).square().sum() for name, value in trained.initial_weights.items() if "trainable" in name) for w in weights
    ]
    assert changes[0] > changes[1] > 0


def test_a_model_without_pretrained_weights_trains(catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    tiny = ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=0, frozen_stages=0, pretrained_share=0)
    bundle, points = fit_small(catalogue, triplets, tmp_path, model=tiny)
    assert {point.name for point in points} >= {"train.loss", "val.recall_at_1"}
    assert bundle.load()[0].embedding_dim == 256


def test_training_on_one_class_is_refused(catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    rows = np.flatnonzero(catalogue.frame["label"] == catalogue.frame["label"][0])[:3]
    frame = pd.DataFrame([[*rows, 1.0, 0.0, "train"]], columns=triplets.frame.columns)
    with pytest.raises(DataError, match="two classes"):
        fit(catalogue, Triplets(frame, ""), TrainSettings(**SMALL), tmp_path, Record(tmp_path))


def test_an_unknown_backbone_is_refused_before_training(catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_model"):
        fit_small(catalogue, triplets, tmp_path, model=ModelSettings(backbone="no_model"))
    assert not (tmp_path / "bundle").exists()


def test_other_settings_or_triplets_are_another_training(triplets: Triplets) -> None:
    fewer = Triplets(triplets.frame.iloc[:-1], triplets.fingerprint)
    other_catalogue = Triplets(triplets.frame, "another catalogue")
    keys = [training_key(drawn, TrainSettings()) for drawn in (triplets, fewer, other_catalogue)]
    assert len({*keys, training_key(triplets, TrainSettings(seed=1))}) == 4
    assert training_key(Triplets(triplets.frame.copy(), triplets.fingerprint), TrainSettings()) == keys[0]


def test_changed_initial_weights_are_another_training(triplets: Triplets, tmp_path: Path) -> None:
    def key(content: bytes) -> str:
        (tmp_path / "w.pth").write_bytes(content)
        settings = TrainSettings.model_validate({"model": {"weights": f"file:{tmp_path / 'w.pth'}"}})
        assert TrainSettings.model_validate(settings.model_dump()) == settings
        return training_key(triplets, settings)

    assert key(b"first") == key(b"first") != key(b"second")


def test_the_search_model_keeps_the_pretrained_stages(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    with_share = model_settings.model_copy(update={"pretrained_share": 0.4, "frozen_stages": 2})
    bundle, _ = fit_small(catalogue, triplets, tmp_path, model=with_share)
    model, _ = bundle.load()
    assert isinstance(model, SearchModel)
    for name, value in EmbeddingModel(with_share).trainable.state_dict().items():
        assert torch.equal(model.pretrained.state_dict()[name], value), name
        assert not torch.equal(model.finetuned.trainable.state_dict()[name], value), name
    assert len(model.familiarity.reference) == int(bundle.facts["images"])


def test_batches_of_triplets_train_on_those_triplets(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    settings = {"model": model_settings, "batch_sampler": "triplets", "triplets_per_batch": 7, "losses": (hinge_settings(),)}
    bundle, points = fit_small(catalogue, triplets, tmp_path / "a", **settings)
    exchanged = triplets.frame.rename(columns={"positive": "negative", "negative": "positive"})
    other, _ = fit_small(catalogue, Triplets(exchanged, triplets.fingerprint), tmp_path / "b", **settings)
    assert np.isfinite([point.value for point in points]).all()
    assert bundle.weights_hash != other.weights_hash


def test_early_stopping_keeps_the_best_epoch(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    settings = {"model": model_settings, "learning_rate": 1e-9, "head_learning_rate": 1e-9}
    bundle, points = fit_small(catalogue, triplets, tmp_path / "a", epochs=9, early_stopping_patience=2, **settings)
    recalls = [point.value for point in points if point.name == "val.recall_at_1"]
    assert len(recalls) < 9
    assert recalls.index(max(recalls)) == len(recalls) - 3
    assert bundle.config["facts"]["epochs"] == str(len(recalls))
    assert validate(*bundle.load(), catalogue, triplets)["recall_at_1"] == max(recalls)


def test_training_on_val_has_no_validation(catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path) -> None:
    without, points = fit_small(catalogue, triplets, tmp_path / "a", model=model_settings)
    assert "val.recall_at_1" in {point.name for point in points}
    other, points = fit_small(catalogue, triplets, tmp_path / "b", model=model_settings, splits=("train", "val"))
    assert not [point.name for point in points if point.name.startswith("val.")]
    assert other.weights_hash != without.weights_hash


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping_patience": 1}, "early_stopping_patience: it needs the val split, which has no triplet"),
        ({"scheduler": {"name": "ReduceLROnPlateau", "interval": "epoch"}}, "ReduceLROnPlateau needs the val split, which has no triplet"),
    ],
)
def test_settings_that_need_val_triplets_are_refused_without(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    without_val = Triplets(triplets.frame[triplets.frame["split"] != "val"], triplets.fingerprint)
    with pytest.raises(ConfigError, match=message):
        fit_small(catalogue, without_val, tmp_path, model=model_settings, **settings)


def test_a_loss_that_is_not_finite_ends_the_training(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    settings = {"learning_rate": 1e30, "head_learning_rate": 1e30, "ema_decay": 0.0, "scheduler": {"kwargs": {"warmup_ratio": 0.0}}}
    # In an epoch of few steps the first and the last one are checked.
    with pytest.raises(TrainingError, match=r"epoch 1, step \d+: the loss is (nan|inf)"):
        fit_small(catalogue, triplets, tmp_path, model=model_settings, **settings)
    assert not (tmp_path / "bundle").exists()


def test_more_gpus_than_available_are_refused(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    requested = max(torch.cuda.device_count(), 1) + 1
    with pytest.raises(ConfigError, match=rf"train\.devices: {requested} GPUs are set, but this machine has"):
        fit_small(catalogue, triplets, tmp_path, model=model_settings, devices=requested)
    assert not (tmp_path / "bundle").exists()

"""Training on rendered images with a tiny net from known random weights."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ConfigError, DataError, TrainingError
from deeprank.models.backbone import create_backbone
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings, SearchModel
from deeprank.models.inference import embed_catalogue
from deeprank.reporting import MetricPoint, Record
from deeprank.training.augmentation import AugmentSettings, random_affine_crop
from deeprank.training.fit import TrainSettings, check_embeddings, fit, parameter_groups, training_key, validate
from deeprank.training.losses import LossSettings, MinerSettings, create_loss
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets

# One precision, as a choice by speed may differ from run to run where others use the machine; random features tell no head anything.
SMALL = {
    "epochs": 1,
    "precision": "fp32",
    "init_head": "random",
    "train_image_sizes": (64,),
    "eval_image_size": 64,
    "classes_per_batch": 3,
    "images_per_class": 2,
}


@dataclass(frozen=True)
class Trained:
    bundle: Bundle
    record: Record
    settings: TrainSettings
    before: dict[str, torch.Tensor]

    @property
    def after(self) -> dict[str, torch.Tensor]:
        """The weights after training, under the names they have in `before`."""
        return load_file(self.bundle.folder / "model.safetensors")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights with BatchNorm statistics that are not the initial ones."""
    torch.manual_seed(11)
    model, _, _ = create_backbone("test_efficientnet", "none")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    file = tmp_path_factory.mktemp("start") / "weights.safetensors"
    save_file(model.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def model_settings(start: Path) -> ModelSettings:
    return ModelSettings(backbone="test_efficientnet", weights=f"file:{start}", embedding_dim=16, frozen_stages=0, pretrained_share=0)


@pytest.fixture(scope="module")
def trained(
    catalogue: Catalogue, triplets: Triplets, start: Path, model_settings: ModelSettings, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """Two epochs with the stem and the first block frozen, from a working folder that must stay empty."""
    folder = tmp_path_factory.mktemp("trained")
    settings = TrainSettings(**SMALL | {"epochs": 2}, model=model_settings.model_copy(update={"frozen_stages": 2}))
    record = Record(folder / "record")
    (folder / "here").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "here")
        bundle = fit(catalogue, triplets, settings, folder / "bundle", record)
    assert list((folder / "here").iterdir()) == []
    return Trained(bundle, record, settings, EmbeddingModel(settings.model).state_dict())


def _fit(catalogue: Catalogue, triplets: Triplets, folder: Path, **settings: object) -> tuple[Bundle, list[MetricPoint]]:
    record = Record(folder / "record")
    return fit(catalogue, triplets, TrainSettings(**SMALL | settings), folder / "bundle", record), record.points


def test_each_epoch_reports_loss_speed_rate_and_what_val_says(trained: Trained) -> None:
    names = {"train.loss", "train.images_per_second", "train.learning_rate", "val.recall_at_1", "val.triplet_accuracy"}
    points = trained.record.points
    assert sorted((point.name, point.step) for point in points) == sorted((name, epoch) for name in names for epoch in (1, 2))
    assert all(np.isfinite(point.value) for point in points)
    assert all(0 <= point.value <= 1 for point in points if point.name.startswith("val."))


def test_the_last_point_of_val_is_what_the_saved_bundle_gives(trained: Trained, catalogue: Catalogue, triplets: Triplets) -> None:
    last = {point.name: point.value for point in trained.record.points if point.step == 2}
    found = validate(*trained.bundle.load(), catalogue, triplets)
    assert {f"val.{name}": value for name, value in found.items()} == {k: v for k, v in last.items() if k.startswith("val.")}


def test_the_bundle_says_what_it_was_trained_on_and_how(trained: Trained, catalogue: Catalogue) -> None:
    facts = {"catalogue": catalogue.fingerprint, "losses": "CosineSoftmax, SupConLoss", "epochs": "2", "seed": "0", "bf16": "none"}
    facts |= {"images": "16", "classes": "6", "start": "scratch"}
    assert trained.bundle.config["facts"] == facts
    assert ModelSettings.model_validate(trained.bundle.config["started_from"]) == trained.settings.model
    model, preprocessing = trained.bundle.load()
    assert (model.embedding_dim, preprocessing.size) == (16, 64)


def test_frozen_stages_keep_their_weights_and_the_others_move(trained: Trained) -> None:
    names = [name for name, _ in trained.bundle.load()[0].named_parameters()]
    assert any(name.startswith("lower.") for name in names)
    for name in names:
        assert torch.equal(trained.after[name], trained.before[name]) == name.startswith("lower."), name


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(
    trained: Trained, catalogue: Catalogue, triplets: Triplets, tmp_path: Path
) -> None:
    again = fit(catalogue, triplets, trained.settings, tmp_path / "again", Record(tmp_path))
    other = fit(catalogue, triplets, trained.settings.model_copy(update={"seed": 1}), tmp_path / "other", Record(tmp_path))
    assert again.weights_hash == trained.bundle.weights_hash
    assert other.weights_hash != trained.bundle.weights_hash


def test_training_lowers_the_loss(catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path) -> None:
    still = AugmentSettings(crop_scale=1, stretch=1, flip=0, turn=0, brightness=0, contrast=0, saturation=0, tint=0)
    settings = {"epochs": 12, "train_image_sizes": (32,), "eval_image_size": 32, "learning_rate": 3e-3, "classes_per_batch": 6}
    _, points = _fit(catalogue, triplets, tmp_path, model=model_settings, augment=still, **settings)
    losses = [point.value for point in points if point.name == "train.loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("loss", [{"name": "RankingHinge", "kwargs": {"margin": 0.2}}, {"name": "ProxyAnchorLoss", "kwargs": {}}])
def test_other_losses_train_too(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, loss: dict
) -> None:
    bundle, points = _fit(catalogue, triplets, tmp_path, model=model_settings, losses=(LossSettings(**loss),))
    assert all(np.isfinite(point.value) for point in points)
    assert all(value.isfinite().all() for value in bundle.load()[0].state_dict().values())


def test_several_losses_and_sizes_train_together(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    losses = (LossSettings(), LossSettings(name="RankingHinge", kwargs={"margin": 0.2}, weight=0.5))
    bundle, points = _fit(catalogue, triplets, tmp_path, model=model_settings, losses=losses, train_image_sizes=(32, 48), epochs=2)
    assert bundle.config["facts"]["losses"] == "SupConLoss, RankingHinge"
    assert [point.step for point in points if point.name == "train.loss"] == [1, 2]


def test_of_fewer_epochs_than_sizes_the_last_ones_are_taken(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def warp_and_tell(images: torch.Tensor, size: int, *rest: object) -> torch.Tensor:
        seen.append(size)
        return random_affine_crop(images, size, *rest)

    monkeypatch.setattr("deeprank.training.fit.warp", warp_and_tell)
    _fit(catalogue, triplets, tmp_path, model=model_settings, train_image_sizes=(32, 48, 64), epochs=2)
    assert list(dict.fromkeys(seen)) == [48, 64]


def test_a_val_image_alone_in_its_class_is_learned_from(catalogue: Catalogue, model_settings: ModelSettings, tmp_path: Path) -> None:
    frame, other = catalogue.frame.copy(), Catalogue(catalogue.uri, catalogue.version)
    kept = frame[frame["split"] == "val"].drop_duplicates("label").index
    frame.loc[(frame["split"] == "val") & ~frame.index.isin(kept), "split"] = "aside"
    other.__dict__["frame"] = frame
    triplets = sample_triplets(frame, SampleSettings(), "x")
    assert not len(triplets.of("val"))
    bundle, _ = _fit(other, triplets, tmp_path, model=model_settings, splits=("train", "val"))
    assert int(bundle.config["facts"]["images"]) == (frame["split"] == "train").sum() + len(kept)


def test_the_average_of_the_weights_is_kept_unless_it_is_switched_off(
    trained: Trained, catalogue: Catalogue, triplets: Triplets, tmp_path: Path
) -> None:
    last = fit(catalogue, triplets, trained.settings.model_copy(update={"ema_decay": 0.0}), tmp_path / "last", Record(tmp_path))
    weights = [load_file(bundle.folder / "model.safetensors") for bundle in (last, trained.bundle)]
    far, near = (sum((w[name] - value).square().sum() for name, value in trained.before.items() if "upper" in name) for w in weights)
    assert far > near > 0


def test_a_random_net_without_weights_trains(catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    tiny = ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=0, frozen_stages=0, pretrained_share=0)
    bundle, points = _fit(catalogue, triplets, tmp_path, model=tiny)
    assert {point.name for point in points} >= {"train.loss", "val.recall_at_1"}
    assert bundle.load()[0].embedding_dim == 256


def test_validation_is_leave_one_out_recall_and_the_share_of_ordered_triplets(
    bundle: Bundle, catalogue: Catalogue, triplets: Triplets
) -> None:
    model, preprocessing = bundle.load()
    embeddings = embed_catalogue(model, preprocessing, catalogue, np.arange(len(catalogue.frame)))
    labels, rows = catalogue.frame["label"], catalogue.rows("val").tolist()
    distance = np.linalg.norm(embeddings[:, None] - embeddings, axis=2)
    hits = [
        labels[min((other for other in rows if other != row), key=lambda other, row=row: distance[row, other])] == labels[row]
        for row in rows
    ]
    ordered = [distance[t.query, t.positive] < distance[t.query, t.negative] for t in triplets.of("val").itertuples()]
    found = validate(model, preprocessing, catalogue, triplets)
    assert found == {"recall_at_1": pytest.approx(np.mean(hits)), "triplet_accuracy": pytest.approx(np.mean(ordered))}


def test_without_val_triplets_there_is_nothing_to_validate(bundle: Bundle, catalogue: Catalogue, triplets: Triplets) -> None:
    train = Triplets(triplets.of("train"), triplets.fingerprint)
    assert validate(*bundle.load(), catalogue, train) == {}


def test_one_class_cannot_be_trained_on(catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    rows = np.flatnonzero(catalogue.frame["label"] == catalogue.frame["label"][0])[:3]
    frame = pd.DataFrame([[*rows, 1.0, 0.0, "train"]], columns=triplets.frame.columns)
    with pytest.raises(DataError, match="two classes"):
        fit(catalogue, Triplets(frame, ""), TrainSettings(**SMALL), tmp_path, Record(tmp_path))


def test_a_net_that_cannot_be_made_ends_training_before_it_starts(catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_net"):
        _fit(catalogue, triplets, tmp_path, model=ModelSettings(backbone="no_net"))
    assert not (tmp_path / "bundle").exists()


def test_other_settings_or_triplets_are_another_training(triplets: Triplets) -> None:
    fewer = Triplets(triplets.frame.iloc[:-1], triplets.fingerprint)
    elsewhere = Triplets(triplets.frame, "another catalogue")
    keys = [training_key(drawn, TrainSettings()) for drawn in (triplets, fewer, elsewhere)]
    assert len({*keys, training_key(triplets, TrainSettings(seed=1))}) == 4
    assert training_key(Triplets(triplets.frame.copy(), triplets.fingerprint), TrainSettings()) == keys[0]


def test_convnet_and_head_learn_at_rates_of_their_own_and_frozen_stages_not_at_all(model_settings: ModelSettings) -> None:
    model = EmbeddingModel(model_settings.model_copy(update={"frozen_stages": 1}))
    loss = create_loss(LossSettings(name="ProxyAnchorLoss", kwargs={}), torch.eye(4), 16)
    groups = parameter_groups(model, loss, TrainSettings(learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.1))
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert all(rate_of[id(parameter)] == 1e-4 for parameter in model.upper.parameters())
    assert all(rate_of[id(parameter)] == 1e-2 for parameter in [*model.head.parameters(), *loss.parameters()])
    assert not any(id(parameter) in rate_of for parameter in model.lower.parameters())
    decayed = {id(parameter) for group in groups for parameter in group["params"] if group["weight_decay"]}
    assert decayed == {id(parameter) for parameter in [*model.upper.parameters(), *model.head.parameters()] if parameter.ndim > 1}


def test_with_general_features_the_net_from_before_training_is_kept(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    both = model_settings.model_copy(update={"pretrained_share": 0.4, "frozen_stages": 2})
    bundle, _ = _fit(catalogue, triplets, tmp_path, model=both)
    model, _ = bundle.load()
    assert isinstance(model, SearchModel)
    for name, value in EmbeddingModel(both).upper.state_dict().items():
        assert torch.equal(model.original.state_dict()[name], value), name
        assert not torch.equal(model.tuned.upper.state_dict()[name], value), name
    assert model.before.center.abs().sum() > 0


def test_batches_of_triplets_train_on_those_triplets(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    settings = {
        "model": model_settings,
        "batch_sampler": "triplets",
        "triplets_per_batch": 7,
        "losses": (LossSettings(name="RankingHinge"),),
    }
    bundle, points = _fit(catalogue, triplets, tmp_path / "a", **settings)
    turned = triplets.frame.rename(columns={"positive": "negative", "negative": "positive"})
    other, _ = _fit(catalogue, Triplets(turned, triplets.fingerprint), tmp_path / "b", **settings)
    assert np.isfinite([point.value for point in points]).all()
    assert bundle.weights_hash != other.weights_hash


def test_triplets_and_a_miner_that_picks_others_contradict_each_other() -> None:
    mined = LossSettings(name="TripletMarginLoss", miner=MinerSettings(name="TripletMarginMiner"))
    with pytest.raises(ValidationError, match=r"batch_sampler: triplets.*TripletMarginLoss"):
        TrainSettings(batch_sampler="triplets", losses=(mined,))


def test_patience_ends_a_training_and_keeps_its_best_epoch(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    settings = {"model": model_settings, "learning_rate": 1e-9, "head_learning_rate": 1e-9}
    bundle, points = _fit(catalogue, triplets, tmp_path / "a", epochs=9, early_stopping_patience=2, **settings)
    recalls = [point.value for point in points if point.name == "val.recall_at_1"]
    assert len(recalls) < 9
    assert recalls.index(max(recalls)) == len(recalls) - 3
    assert bundle.config["facts"]["epochs"] == str(len(recalls))
    found = validate(*bundle.load(), catalogue, triplets)
    assert found["recall_at_1"] == max(recalls)


def test_val_images_are_learned_from_where_asked_and_then_validate_nothing(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    without, points = _fit(catalogue, triplets, tmp_path / "a", model=model_settings)
    assert "val.recall_at_1" in {point.name for point in points}
    other, points = _fit(catalogue, triplets, tmp_path / "b", model=model_settings, splits=("train", "val"))
    assert not [point.name for point in points if point.name.startswith("val.")]
    assert other.weights_hash != without.weights_hash
    with pytest.raises(ValidationError, match="early_stopping_patience watches the val split"):
        TrainSettings(early_stopping_patience=1, splits=("train", "val"))
    none = dataclasses.replace(triplets, frame=triplets.frame[triplets.frame["split"] != "val"])
    with pytest.raises(ConfigError, match="early_stopping_patience: it watches the val split, which has no triplet"):
        _fit(catalogue, none, tmp_path / "c", model=model_settings, early_stopping_patience=1)


def test_other_weights_in_the_same_file_are_another_training(triplets: Triplets, tmp_path: Path) -> None:
    def key(content: bytes) -> str:
        (tmp_path / "w.pth").write_bytes(content)
        settings = TrainSettings.model_validate({"model": {"weights": f"file:{tmp_path / 'w.pth'}"}})
        assert TrainSettings.model_validate(settings.model_dump()) == settings
        return training_key(triplets, settings)

    assert key(b"some") == key(b"some") != key(b"other")


def test_sgd_trains_too(catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path) -> None:
    _, points = _fit(catalogue, triplets, tmp_path, model=model_settings, optimizer="SGD", learning_rate=1e-3)
    assert np.isfinite([point.value for point in points]).all()


def test_a_collapsed_embedding_ends_a_training_with_what_to_do() -> None:
    apart = torch.nn.functional.normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    check_embeddings(apart, torch.tensor(1.0), 1, 1)
    with pytest.raises(TrainingError, match=r"epoch 3, step 11: the embedding has collapsed.*learning_rate"):
        check_embeddings(apart[:1].repeat(8, 1), torch.tensor(1.0), 3, 11)


def test_a_loss_that_is_no_number_ends_a_training(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    # Of so short an epoch the first step is looked at, and the last.
    with pytest.raises(TrainingError, match=r"epoch 1, step \d+: the loss is (nan|inf)"):
        _fit(
            catalogue,
            triplets,
            tmp_path,
            model=model_settings,
            learning_rate=1e30,
            head_learning_rate=1e30,
            ema_decay=0.0,
            warmup_ratio=0.0,
        )
    assert not (tmp_path / "bundle").exists()


def test_more_gpus_than_there_are_end_a_training_before_it_starts(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path
) -> None:
    wanted = max(torch.cuda.device_count(), 1) + 1
    with pytest.raises(ConfigError, match=rf"train\.devices: {wanted} GPUs are asked for, this machine has"):
        _fit(catalogue, triplets, tmp_path, model=model_settings, devices=wanted)
    assert not (tmp_path / "bundle").exists()


def test_val_says_nothing_of_classes_that_are_kept_out_of_training(catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> None:
    labels = catalogue.frame["label"]
    drawn = triplets.of("val")
    out = labels.iloc[drawn["query"]].iloc[0]
    known = ~labels.iloc[drawn[["query", "positive", "negative"]].to_numpy().ravel()].eq(out).to_numpy().reshape(-1, 3).any(axis=1)
    model, preprocessing = bundle.load()
    found = validate(model, preprocessing, catalogue, Triplets(drawn[known], triplets.fingerprint))
    # By brute force: each val image of the classes that are left, among those.
    rows = catalogue.rows("val")
    rows = rows[labels.iloc[rows].isin(labels.iloc[drawn["query"][known]]).to_numpy()]
    embeddings = embed_catalogue(model, preprocessing, catalogue, rows)
    hits = []
    for place, row in enumerate(rows):
        others = [other for other in range(len(rows)) if other != place]
        nearest = max(others, key=lambda other: float(embeddings[other] @ embeddings[place]))
        if (labels.iloc[rows] == labels.iloc[row]).sum() > 1:
            hits.append(labels.iloc[rows[nearest]] == labels.iloc[row])
    assert found["recall_at_1"] == pytest.approx(np.mean(hits))


def test_val_knows_classes_that_are_only_negatives(catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> None:
    labels, drawn = catalogue.frame["label"], triplets.of("val")
    only = labels.iloc[drawn["negative"]].iloc[0]
    drawn = drawn[(labels.iloc[drawn["query"]] != only).to_numpy()]
    assert (labels.iloc[drawn["negative"]] == only).any()
    model, preprocessing = bundle.load()
    every = embed_catalogue(model, preprocessing, catalogue, np.arange(len(catalogue.frame)))
    query, positive, negative = (every[drawn[name]] for name in ("query", "positive", "negative"))
    nearer = ((query * positive).sum(1) > (query * negative).sum(1)).mean()
    assert validate(model, preprocessing, catalogue, Triplets(drawn, triplets.fingerprint))["triplet_accuracy"] == nearer

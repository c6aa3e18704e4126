"""Settings of a training that contradict each other are refused."""

import pytest
from pydantic import ValidationError

from deeprank.training.losses import LossSettings, MinerSettings
from deeprank.training.settings import TrainSettings


def test_batches_of_triplets_with_a_miner_are_refused() -> None:
    mined = LossSettings(name="TripletMarginLoss", miner=MinerSettings(name="TripletMarginMiner"))
    with pytest.raises(ValidationError, match=r"batch_sampler: triplets.*TripletMarginLoss"):
        TrainSettings(batch_sampler="triplets", losses=(mined,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping_patience": 1}, "early_stopping_patience needs the val split for validation, but splits trains on it"),
        ({"scheduler": {"name": "ReduceLROnPlateau", "interval": "epoch"}}, "ReduceLROnPlateau needs the val split for validation"),
    ],
)
def test_training_on_val_with_a_need_for_validation_is_refused(settings: dict[str, object], message: str) -> None:
    assert TrainSettings(**settings)
    with pytest.raises(ValidationError, match=message):
        TrainSettings(**settings, splits=("train", "val"))


def test_weight_decay_for_an_optimizer_without_it_is_refused() -> None:
    with pytest.raises(ValidationError, match="optimizer Rprop has no weight decay; set weight_decay: 0"):
        TrainSettings(optimizer={"name": "Rprop"})
    assert TrainSettings(optimizer={"name": "Rprop"}, weight_decay=0).optimizer.name == "Rprop"


def test_settings_are_the_same_after_a_round_trip_through_json() -> None:
    settings = TrainSettings(scheduler={"name": "MultiStepLR", "kwargs": {"milestones": [3, 5], "gamma": 0.5}})
    assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings

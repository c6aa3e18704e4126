"""When a training is due: each rule by itself, none of them where nothing is new, and the registry's newest training as the measure."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.registry.register import RegisterSettings, register
from deeprank.registry.retraining_due import RetrainingSettings, Training, decide_retraining, due, last_training
from deeprank.reporting import Record
from tests.serving.conftest import Store, decision

NOW = datetime(2025, 6, 15, 3, tzinfo=UTC)
SETTINGS = RetrainingSettings(min_new_images=10, max_age_days=30, drift_p_value=0.01, drift_classes=0.5)


def _trained(catalogue: Catalogue, without: int = 0, days: float = 1, **changed: str) -> Training:
    """Return a training of so many days ago whose catalogue lacked the last `without` of today's images."""
    known = catalogue.frame[["id", "label"]].iloc[: len(catalogue.frame) - without].assign(**changed)
    return Training(3, NOW - timedelta(days=days), "before" if without or changed else catalogue.fingerprint, known)


def _due(catalogue: Catalogue, last: Training | None, champion: int | None = 3, **drift: float) -> tuple[bool, str]:
    decided = due(catalogue, last, champion, {f"drift.{name}": value for name, value in drift.items()}, SETTINGS, NOW)
    return decided.due, decided.reason


def test_the_first_training_is_due(catalogue: Catalogue) -> None:
    assert _due(catalogue, None, None) == (True, "nothing is registered yet: the first training")


@pytest.mark.parametrize("champion", [3, None])
def test_nothing_new_is_never_due_however_old_or_drifted(catalogue: Catalogue, champion: int | None) -> None:
    told = _due(catalogue, _trained(catalogue, days=400), champion, p_value=0.002, classes_drifted=6)
    assert told == (False, "nothing new since version 3 was trained 400.0 days ago")


@pytest.mark.parametrize(("without", "expected"), [(9, False), (10, True)])
def test_enough_new_images_make_one_due(catalogue: Catalogue, without: int, expected: bool) -> None:
    says, reason = _due(catalogue, _trained(catalogue, without))
    assert says is expected
    assert reason.startswith(f"{without} new images and 0 gone since version 3 was trained 1.0 days ago: ")
    assert ("10 are enough" in reason) is expected


def test_a_image_that_moved_to_another_class_is_new_and_gone(catalogue: Catalogue) -> None:
    says, reason = _due(catalogue, _trained(catalogue, label="elsewhere"))
    assert says
    assert reason.startswith(f"{len(catalogue.frame)} new images and {len(catalogue.frame)} gone")


@pytest.mark.parametrize(("days", "expected"), [(29.9, False), (30, True)])
def test_age_makes_anything_new_due(catalogue: Catalogue, days: float, expected: bool) -> None:
    says, reason = _due(catalogue, _trained(catalogue, 1, days))
    assert says is expected
    assert ("that is 30 days or more" in reason) is expected


@pytest.mark.parametrize(
    ("without", "drift", "expected"),
    [
        (9, {"p_value": 0.009}, "they drifted, p 0.0090 is below 0.01"),
        (9, {"p_value": 0.01}, ""),
        (9, {"p_value": 0.5, "classes_drifted": 3}, "50% of the classes drifted, 50% are enough"),
        (9, {"p_value": 0.5, "classes_drifted": 2}, ""),
        # Of these images a training that the gate held knew all but one.
        (1, {"p_value": 0.002, "classes_drifted": 6}, ""),
    ],
)
def test_drift_of_images_that_are_new_makes_one_due(catalogue: Catalogue, without: int, drift: dict[str, float], expected: str) -> None:
    says, reason = _due(catalogue, _trained(catalogue, without), **drift)
    assert says is bool(expected)
    assert expected in reason
    assert expected or ("no drift" if without > 1 else "too few of known classes to test for drift") in reason


def test_without_a_champion_anything_new_is_due(catalogue: Catalogue) -> None:
    says, reason = _due(catalogue, _trained(catalogue, 1), None)
    assert says
    assert "there is no champion" in reason


def test_all_rules_that_say_so_are_named(catalogue: Catalogue) -> None:
    _, reason = _due(catalogue, _trained(catalogue, 10, 31), p_value=0.002)
    assert reason.endswith(": 10 are enough; they drifted, p 0.0020 is below 0.01; that is 30 days or more")


def test_a_rule_can_be_switched_off(catalogue: Catalogue) -> None:
    off = SETTINGS.model_copy(update={"drift_p_value": 0, "drift_classes": 2})
    drift = {"drift.p_value": 0.0, "drift.classes_drifted": 6.0}
    assert not due(catalogue, _trained(catalogue, 9), 3, drift, off, NOW).due


def test_the_last_training_is_the_newest_version_that_was_trained(store: Store, catalogue: Catalogue) -> None:
    assert last_training("flowers") is None
    # Promoted, held, and the champion with a refreshed index, whose model has not seen today's images.
    refreshed = dataclasses.replace(decision(0.6, None), state="refreshed", reason="its index")
    for decided in (decision(0.6, None), decision(0.55, 0.6), refreshed):
        with mlflow.start_run(experiment_id=store.experiment):
            register(store.folders[0], RegisterSettings(name="flowers"), decided, catalogue, "card")
    last = last_training("flowers")
    assert last is not None
    assert (last.version, last.fingerprint) == (2, catalogue.fingerprint)
    pd.testing.assert_frame_equal(last.images, catalogue.frame[["id", "label"]])
    assert abs(datetime.now(UTC) - last.at) < timedelta(minutes=10)


def test_the_decision_is_reported_with_its_reason(store: Store, catalogue: Catalogue, tmp_path: Path) -> None:
    with mlflow.start_run(experiment_id=store.experiment):
        register(store.folders[0], RegisterSettings(name="shrubs"), decision(0.6, None), catalogue, "card")
    reporter = Record(tmp_path)
    assert not decide_retraining(catalogue, "shrubs", {}, RetrainingSettings(), reporter).due
    assert reporter.notes["retrain.due"] == "no"
    assert reporter.notes["retrain.reason"].startswith("nothing new since version 1 was trained 0.0 days ago")
    assert {point.name for point in reporter.points} == {
        "retrain.new_images",
        "retrain.gone_images",
        "retrain.days_since_training",
        "retrain.share_of_classes_drifted",
    }


def test_a_catalogue_that_is_gone_is_named(store: Store, catalogue: Catalogue) -> None:
    with mlflow.start_run(experiment_id=store.experiment):
        register(store.folders[0], RegisterSettings(name="herbs"), decision(0.6, None), catalogue, "card")
    MlflowClient().set_model_version_tag("herbs", "1", "catalogue.uri", "/no/such/catalogue")
    with pytest.raises(ModelError, match=r"version 1 of herbs was made from /no/such/catalogue, .* train by hand once"):
        last_training("herbs")


def test_another_folder_is_no_reason_to_train(catalogue: Catalogue) -> None:
    last = _trained(catalogue)
    half = len(last.images) // 2
    for lost, refused in ((half, False), (half + 1, True)):
        ids = [f"other{i}" if i < lost else key for i, key in enumerate(last.images["id"])]
        other = dataclasses.replace(last, images=last.images.assign(id=ids), fingerprint="before")
        if refused:
            with pytest.raises(ModelError, match=rf"{lost} of the {len(ids)} images that version 3 was made from are not in"):
                _due(catalogue, other)
        else:
            assert _due(catalogue, other)[0]

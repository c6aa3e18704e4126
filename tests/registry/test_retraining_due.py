"""A training is due by one of several rules, if any image is new or removed since the registry's newest training."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.registry.retraining_due import (
    LastTraining,
    RetrainingDecision,
    RetrainingSettings,
    decide_retraining,
    last_training,
    retraining_due,
)
from deeprank.reporting import Record
from tests.registry_fixtures import Store, gate_decision, register_release

NOW = datetime(2025, 6, 15, 3, tzinfo=UTC)
SETTINGS = RetrainingSettings(min_new_images=10, max_age_days=30, drift_alpha=0.01, min_drifted_class_share=0.5)


def _last_training(catalogue: Catalogue, new: int = 0, days: float = 1, **changed: str) -> LastTraining:
    """Return a training of some days ago whose catalogue lacked the last `new` of the current images."""
    images = catalogue.frame[["id", "label"]].iloc[: len(catalogue.frame) - new].assign(**changed)
    return LastTraining(3, NOW - timedelta(days=days), "before" if new or changed else catalogue.fingerprint, images)


def _decide(catalogue: Catalogue, last: LastTraining | None, has_champion: bool = True, **drift: float) -> RetrainingDecision:
    drift_metrics = {f"drift.{name}": value for name, value in drift.items()}
    return retraining_due(catalogue, last, has_champion, drift_metrics, SETTINGS, NOW)


def test_first_training_is_due(catalogue: Catalogue) -> None:
    decision = _decide(catalogue, None)
    assert (decision.due, decision.reason) == (True, "no release is registered yet, so this is the first training")


@pytest.mark.parametrize("has_champion", [True, False])
def test_unchanged_catalogue_is_never_due(catalogue: Catalogue, has_champion: bool) -> None:
    decision = _decide(catalogue, _last_training(catalogue, days=400), has_champion, p_value=0.002, classes_drifted=6)
    assert (decision.due, decision.reason) == (False, "no new or removed images since version 3 was trained 400.0 days ago")


@pytest.mark.parametrize(("new", "expected"), [(9, False), (10, True)])
def test_enough_new_images_make_a_training_due(catalogue: Catalogue, new: int, expected: bool) -> None:
    decision = _decide(catalogue, _last_training(catalogue, new))
    assert decision.due is expected
    assert decision.reason.startswith(f"{new} new and 0 removed images since version 3 was trained 1.0 days ago: ")
    assert ("at least 10 images are new" in decision.reason) is expected
    assert ("fewer than 10 images are new" in decision.reason) is not expected


def test_image_in_another_class_counts_as_new_and_removed(catalogue: Catalogue) -> None:
    decision = _decide(catalogue, _last_training(catalogue, label="elsewhere"))
    assert decision.due
    assert decision.reason.startswith(f"{len(catalogue.frame)} new and {len(catalogue.frame)} removed images")


@pytest.mark.parametrize(("days", "expected"), [(29.9, False), (30, True)])
def test_age_makes_a_training_due_if_any_image_is_new(catalogue: Catalogue, days: float, expected: bool) -> None:
    decision = _decide(catalogue, _last_training(catalogue, 1, days))
    assert decision.due is expected
    assert ("the last training is at least 30 days old" in decision.reason) is expected


@pytest.mark.parametrize(
    ("new", "drift", "expected"),
    [
        (9, {"p_value": 0.009}, "the new images drifted (p = 0.0090, below 0.01)"),
        (9, {"p_value": 0.01}, ""),
        (9, {"p_value": 0.5, "classes_drifted": 3}, "50% of the classes drifted (at least 50%)"),
        (9, {"p_value": 0.5, "classes_drifted": 2}, ""),
        # A held release was trained on all of the drifted images but one.
        (1, {"p_value": 0.002, "classes_drifted": 6}, ""),
    ],
)
def test_drift_of_new_images_makes_a_training_due(catalogue: Catalogue, new: int, drift: dict[str, float], expected: str) -> None:
    decision = _decide(catalogue, _last_training(catalogue, new), **drift)
    assert decision.due is bool(expected)
    assert expected in decision.reason
    no_drift = "no drift was found" if new > 1 else "too few images of known classes are new to test for drift"
    assert expected or no_drift in decision.reason


def test_any_change_is_due_without_a_champion(catalogue: Catalogue) -> None:
    decision = _decide(catalogue, _last_training(catalogue, 1), has_champion=False)
    assert decision.due
    assert "there is no champion" in decision.reason


def test_reason_names_all_rules_that_are_met(catalogue: Catalogue) -> None:
    reason = _decide(catalogue, _last_training(catalogue, 10, 31), p_value=0.002).reason
    rules = "at least 10 images are new; the new images drifted (p = 0.0020, below 0.01); the last training is at least 30 days old"
    assert reason.endswith(f": {rules}")


def test_drift_rules_can_be_switched_off(catalogue: Catalogue) -> None:
    settings = SETTINGS.model_copy(update={"drift_alpha": 0, "min_drifted_class_share": 2})
    drift = {"drift.p_value": 0.0, "drift.classes_drifted": 6.0}
    assert not retraining_due(catalogue, _last_training(catalogue, 9), True, drift, settings, NOW).due


def test_last_training_is_the_newest_trained_version(store: Store, catalogue: Catalogue) -> None:
    assert last_training("flowers") is None
    # Promoted, held, and the champion with a refreshed index, whose model was not trained on the current images.
    refreshed = dataclasses.replace(gate_decision(0.6, None), state="refreshed", reason="its index")
    for decision in (gate_decision(0.6, None), gate_decision(0.55, 0.6), refreshed):
        register_release(store, "flowers", decision, catalogue)
    last = last_training("flowers")
    assert last is not None
    assert (last.version, last.fingerprint) == (2, catalogue.fingerprint)
    pd.testing.assert_frame_equal(last.images, catalogue.frame[["id", "label"]])
    assert abs(datetime.now(UTC) - last.at) < timedelta(minutes=10)


def test_decision_is_reported_with_its_reason(store: Store, catalogue: Catalogue, tmp_path: Path) -> None:
    register_release(store, "shrubs", gate_decision(0.6, None), catalogue)
    reporter = Record(tmp_path)
    assert not decide_retraining(catalogue, "shrubs", {}, RetrainingSettings(), reporter).due
    assert reporter.notes["retraining_due"] == "no"
    assert reporter.notes["retraining_due.reason"].startswith("no new or removed images since version 1 was trained 0.0 days ago")
    assert {point.name for point in reporter.points} == {
        "retraining_due.new_images",
        "retraining_due.removed_images",
        "retraining_due.days_since_training",
        "retraining_due.drifted_class_share",
    }


def test_unreadable_catalogue_is_named(store: Store, catalogue: Catalogue) -> None:
    register_release(store, "herbs", gate_decision(0.6, None), catalogue)
    MlflowClient().set_model_version_tag("herbs", "1", "catalogue.uri", "/no/such/catalogue")
    with pytest.raises(ModelError, match=r"version 1 of herbs was made from /no/such/catalogue, .* train once manually"):
        last_training("herbs")


def test_catalogue_of_another_folder_is_refused(catalogue: Catalogue) -> None:
    last = _last_training(catalogue)
    half = len(last.images) // 2
    for missing, refused in ((half, False), (half + 1, True)):
        ids = [f"other{i}" if i < missing else key for i, key in enumerate(last.images["id"])]
        other = dataclasses.replace(last, images=last.images.assign(id=ids), fingerprint="before")
        if refused:
            message = rf"{missing} of the {len(ids)} images that version 3 was trained on are missing from"
            with pytest.raises(ModelError, match=message):
                _decide(catalogue, other)
        else:
            assert _decide(catalogue, other).due

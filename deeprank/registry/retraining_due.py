"""When to train again: by the number of new images, their drift against the champion, and the age of the last training."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pandas as pd
from mlflow import MlflowClient
from pydantic import Field

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError, StoreError
from deeprank.monitoring.drift import MIN_TEST_IMAGES
from deeprank.registry.refresh import require_most_images
from deeprank.registry.releases import find_version
from deeprank.reporting import Reporter
from deeprank.settings import Settings


class RetrainingSettings(Settings):
    """When to train again, and from which weights; if no image is new or removed, no training is due.

    Attributes:
        min_new_images: number of new images, or images in a new class, from which a training is due.
        max_age_days: age of the last training from which a training is due, in days.
        drift_alpha: a training is due if the p-value of the drift test is below this significance level; 0 switches the rule off.
        min_drifted_class_share: share of drifted classes from which a training is due; above 1 switches the rule off.
        init: weights that a training starts from: the champion's, or pretrained ones.

    """

    min_new_images: int = Field(50, ge=1)
    max_age_days: float = Field(30, gt=0)
    drift_alpha: float = Field(0.01, ge=0, le=1)
    min_drifted_class_share: float = Field(0.1, gt=0)
    init: Literal["champion", "pretrained"] = "pretrained"


@dataclass(frozen=True)
class LastTraining:
    """The newest version of a registered model that was trained, champion or not.

    Attributes:
        version: number of the model version.
        at: when it was registered, with a time zone.
        fingerprint: fingerprint of its catalogue.
        images: columns id and label, one row per image of its catalogue.

    """

    version: int
    at: datetime
    fingerprint: str
    images: pd.DataFrame


@dataclass(frozen=True)
class RetrainingDecision:
    """Whether a training is due.

    Attributes:
        due: whether to train.
        reason: why, in one sentence.
        metrics: values that the decision rests on, by MLflow metric name.

    """

    due: bool
    reason: str
    metrics: dict[str, float]


def last_training(name: str) -> LastTraining | None:
    """Return the last training of a registered model; None before the first.

    Raises:
        ModelError: the catalogue that it was made from can no longer be read.

    """
    versions = MlflowClient().search_model_versions(f"name = '{name}'")
    # A refreshed version has the catalogue's current images in its index, but its model was not trained on them.
    trained = [version for version in versions if version.tags.get("gate.state") != "refreshed"]
    if not trained:
        return None
    newest = max(trained, key=lambda version: int(version.version))
    catalogue = Catalogue(newest.tags["catalogue.uri"], int(newest.tags["catalogue.version"]))
    try:
        images = catalogue.frame[["id", "label"]]
    except (StoreError, ValueError, OSError) as error:
        raise ModelError(
            f"version {newest.version} of {name} was made from {catalogue.uri}, version {catalogue.version}, which cannot be read "
            f"({str(error)[:200]}), so its images cannot be compared with the current ones; train once manually: `deeprank run`"
        ) from None
    at = datetime.fromtimestamp(newest.creation_timestamp / 1000, UTC)
    return LastTraining(int(newest.version), at, newest.tags["catalogue.fingerprint"], images)


def retraining_due(
    catalogue: Catalogue,
    last: LastTraining | None,
    has_champion: bool,
    drift_metrics: Mapping[str, float],
    settings: RetrainingSettings,
    now: datetime,
) -> RetrainingDecision:
    """Decide whether a training is due.

    Args:
        catalogue: its current version.
        last: last training, even if the gate held it: training on the same images again would give the same result.
        has_champion: whether the registered model has a champion.
        drift_metrics: metrics reported by `measure_drift`, by name; drift.p_value and drift.classes_drifted may be missing.
        settings: the rules.
        now: current time, with a time zone.

    Raises:
        ModelError: more than half of the images of the last training are missing from the catalogue.

    """
    if last is None:
        return RetrainingDecision(True, "no release is registered yet, so this is the first training", {})
    require_most_images(last.images["id"], catalogue, f"that version {last.version} was trained on", "no training was started")
    current, previous = (_ids_and_labels(images) for images in (catalogue.frame, last.images))
    new, removed = len(current - previous), len(previous - current)
    age_days = (now - last.at) / timedelta(days=1)
    drifted_share = drift_metrics.get("drift.classes_drifted", 0.0) / max(1, catalogue.frame["label"].nunique())
    metrics = {
        "retraining_due.new_images": float(new),
        "retraining_due.removed_images": float(removed),
        "retraining_due.days_since_training": age_days,
        "retraining_due.drifted_class_share": drifted_share,
    }
    since = f"since version {last.version} was trained {age_days:.1f} days ago"
    if catalogue.fingerprint == last.fingerprint:
        return RetrainingDecision(False, f"no new or removed images {since}", metrics)
    met, not_met = _apply_rules(new, age_days, has_champion, drift_metrics, drifted_share, settings)
    return RetrainingDecision(bool(met), f"{new} new and {removed} removed images {since}: {'; '.join(met or not_met)}", metrics)


def _ids_and_labels(images: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(images["id"], images["label"], strict=True))


def _apply_rules(
    new: int, age_days: float, has_champion: bool, drift_metrics: Mapping[str, float], drifted_share: float, settings: RetrainingSettings
) -> tuple[list[str], list[str]]:
    """Return the rules by which a training is due, in words, and those by which it is not."""
    p_value = drift_metrics.get("drift.p_value", 1.0)
    # The drift is measured against the champion: images that a held release was trained on must not make a training due each night.
    enough_for_drift = new >= MIN_TEST_IMAGES
    rules = {
        "there is no champion": not has_champion,
        f"at least {settings.min_new_images} images are new": new >= settings.min_new_images,
        f"the new images drifted (p = {p_value:.4f}, below {settings.drift_alpha:g})": enough_for_drift and p_value < settings.drift_alpha,
        f"{drifted_share:.0%} of the classes drifted (at least {settings.min_drifted_class_share:.0%})": enough_for_drift
        and drifted_share >= settings.min_drifted_class_share,
        f"the last training is at least {settings.max_age_days:g} days old": age_days >= settings.max_age_days,
    }
    tested = enough_for_drift and "drift.p_value" in drift_metrics
    not_met = [
        f"fewer than {settings.min_new_images} images are new",
        "no drift was found" if tested else "too few images of known classes are new to test for drift",
        f"the last training is less than {settings.max_age_days:g} days old",
    ]
    return [rule for rule, met in rules.items() if met], not_met


def decide_retraining(
    catalogue: Catalogue, name: str, drift_metrics: Mapping[str, float], settings: RetrainingSettings, reporter: Reporter
) -> RetrainingDecision:
    """Decide by the state of the registry whether a training is due.

    Reports the metrics retraining_due.* and the notes retraining_due (yes or no) and retraining_due.reason.

    Args:
        catalogue: its current version.
        name: name of the registered model.
        drift_metrics: metrics reported by `measure_drift`, by name.
        settings: the rules.
        reporter: receives the decision.

    Raises:
        ModelError: the last training's catalogue cannot be read, or most of its images are missing from the current one.

    """
    has_champion = find_version(name, "champion") is not None
    decision = retraining_due(catalogue, last_training(name), has_champion, drift_metrics, settings, datetime.now(UTC))
    reporter.note("retraining_due", "yes" if decision.due else "no")
    reporter.note("retraining_due.reason", decision.reason)
    for metric, value in decision.metrics.items():
        reporter.metric(metric, value)
    return decision

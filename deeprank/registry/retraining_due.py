"""Whether a training is due: by what is new since the last one, how far that lies from what the champion knows, and how old it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pandas as pd
from mlflow import MlflowClient
from pydantic import Field

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.monitoring.drift import ENOUGH
from deeprank.registry.register import MOST_GONE
from deeprank.registry.releases import find
from deeprank.reporting import Reporter
from deeprank.settings import Settings


class RetrainingSettings(Settings):
    """When to train again, and from what. Nothing new: never; else as soon as one rule says so.

    Attributes:
        min_new_images: so many images that the last training had not (or had in another class) make one due.
        max_age_days: days after which anything new, however little, makes one due.
        drift_p_value: the new images drifted when the two-sample test's p-value is below this; 0 switches the rule off.
        drift_classes: they drifted when so large a share of all classes did; above 1 switches the rule off.
        init: weights that a training starts from: the champion's, or the pretrained ones.

    """

    min_new_images: int = Field(50, ge=1)
    max_age_days: float = Field(30, gt=0)
    drift_p_value: float = Field(0.01, ge=0, le=1)
    drift_classes: float = Field(0.1, gt=0)
    init: Literal["champion", "pretrained"] = "pretrained"


@dataclass(frozen=True)
class Training:
    """The last training: the newest version of a model that was trained, champion or not.

    Attributes:
        version: of the registered model.
        at: when it was registered, with a time zone.
        fingerprint: of its catalogue.
        images: id and label of each of its catalogue.

    """

    version: int
    at: datetime
    fingerprint: str
    images: pd.DataFrame


@dataclass(frozen=True)
class Due:
    """Whether to train, why or why not in one sentence, and the figures that it rests on, under the names of MLflow."""

    due: bool
    reason: str
    figures: dict[str, float]


def last_training(name: str) -> Training | None:
    """Return the last training of a model; None before the first.

    Raises:
        ModelError: the catalogue that it was made from can no longer be read.

    """
    versions = MlflowClient().search_model_versions(f"name = '{name}'")
    # A refreshed release has today's images in its index, but its model never saw them.
    trained = [version for version in versions if version.tags.get("gate.state") != "refreshed"]
    if not trained:
        return None
    newest = max(trained, key=lambda version: int(version.version))
    catalogue = Catalogue(newest.tags["catalogue.uri"], int(newest.tags["catalogue.version"]))
    try:
        images = catalogue.frame[["id", "label"]]
    except (ValueError, OSError) as error:
        raise ModelError(
            f"version {newest.version} of {name} was made from {catalogue.uri}, version {catalogue.version}, which cannot be read "
            f"({str(error)[:200]}): what is new since then cannot be told; train by hand once"
        ) from None
    at = datetime.fromtimestamp(newest.creation_timestamp / 1000, UTC)
    return Training(int(newest.version), at, newest.tags["catalogue.fingerprint"], images)


def due(
    catalogue: Catalogue,
    last: Training | None,
    champion: int | None,
    drift: Mapping[str, float],
    settings: RetrainingSettings,
    now: datetime,
) -> Due:
    """Decide whether a training is due.

    Args:
        catalogue: today's.
        last: the last training; it counts although the gate held it, as the same images would come to the same again.
        champion: its version; None where there is none.
        drift: the figures of `measure_drift` against the champion, by name; p_value and classes_drifted may be missing.
        settings: the rules.
        now: with a time zone.

    Raises:
        ModelError: most of what the last training had is not there.

    """
    if last is None:
        return Due(True, "nothing is registered yet: the first training", {})
    today, before = (_keys(images) for images in (catalogue.frame, last.images))
    new, gone = len(today - before), len(before - today)
    lost = int((~last.images["id"].isin(catalogue.frame["id"])).sum())
    # As before a refresh: a disk that was not mounted, or another folder, and nobody is there at night to wonder.
    if lost > MOST_GONE * len(last.images):
        raise ModelError(
            f"{lost:,} of the {len(last.images):,} images that version {last.version} was made from are not in the catalogue "
            f"{catalogue.uri}, version {catalogue.version}: nothing is trained by itself; if they are gone for good, train by hand once: "
            "`deeprank run`"
        )
    days = (now - last.at) / timedelta(days=1)
    drifted = drift.get("drift.classes_drifted", 0.0) / max(1, catalogue.frame["label"].nunique())
    figures = {
        "retrain.new_images": float(new),
        "retrain.gone_images": float(gone),
        "retrain.days_since_training": days,
        "retrain.share_of_classes_drifted": drifted,
    }
    since = f"since version {last.version} was trained {days:.1f} days ago"
    if catalogue.fingerprint == last.fingerprint:
        return Due(False, f"nothing new {since}", figures)
    p_value = drift.get("drift.p_value", 1.0)
    # Images that a held training knew already would else make one due night after night.
    tested = new >= ENOUGH
    rules = {
        "there is no champion": champion is None,
        f"{settings.min_new_images} are enough": new >= settings.min_new_images,
        f"they drifted, p {p_value:.4f} is below {settings.drift_p_value:g}": tested and p_value < settings.drift_p_value,
        f"{drifted:.0%} of the classes drifted, {settings.drift_classes:.0%} are enough": tested and drifted >= settings.drift_classes,
        f"that is {settings.max_age_days:g} days or more": days >= settings.max_age_days,
    }
    reasons = [reason for reason, says in rules.items() if says]
    seen = f"{new} new images and {gone} gone {since}"
    if reasons:
        return Due(True, f"{seen}: {'; '.join(reasons)}", figures)
    tried = "no drift" if tested and "drift.p_value" in drift else "too few of known classes to test for drift"
    return Due(False, f"{seen}: fewer than {settings.min_new_images}, {tried}, and not yet {settings.max_age_days:g} days", figures)


def _keys(images: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(images["id"], images["label"], strict=True))


def decide_retraining(catalogue: Catalogue, name: str, drift: Mapping[str, float], settings: RetrainingSettings, reporter: Reporter) -> Due:
    """Decide by what the registry holds, and report retrain.due, retrain.reason and the figures; arguments as of `due`.

    Raises:
        ModelError: as `last_training` and `due`.

    """
    champion = find(name, "champion")
    decided = due(catalogue, last_training(name), int(champion.version) if champion else None, drift, settings, datetime.now(UTC))
    reporter.note("retrain.due", "yes" if decided.due else "no")
    reporter.note("retrain.reason", decided.reason)
    for figure, value in decided.figures.items():
        reporter.metric(figure, value)
    return decided

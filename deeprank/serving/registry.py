"""The MLflow registry: one model version is one release, holding bundle, index and evaluation."""

import base64
import io
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from PIL import Image
from pydantic import Field

from deeprank.errors import ModelError
from deeprank.evaluation.evaluate import Evaluation
from deeprank.evaluation.intervals import Estimate
from deeprank.evaluation.promotion import Decision, PromotionSettings, decide
from deeprank.home import home
from deeprank.model.bundle import Bundle
from deeprank.search.index import Index
from deeprank.settings import Settings

PARTS = ("bundle", "index", "evaluation")
RELEASE_CODE = Path(__file__).with_name("release_model.py")


class RegisterSettings(Settings):
    """Under which name to register, and what the champion must reach."""

    name: str = Field("deeprank", pattern=r"^[A-Za-z0-9_.-]+$")
    promotion: PromotionSettings = PromotionSettings()


@dataclass(frozen=True)
class Release:
    """A folder with bundle/, and index/ and evaluation/ where it comes from the registry; a bare bundle is one too."""

    folder: Path

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return Bundle(self.folder / "bundle" if (self.folder / "bundle").is_dir() else self.folder)

    @property
    def index(self) -> Index:
        """The index, checked to belong to the model.

        Raises:
            ModelError: there is none, or it is another model's.

        """
        index = Index(self.folder / "index")
        index.require(self.bundle)
        return index


@dataclass(frozen=True)
class Registered:
    """What registering came to."""

    name: str
    version: int
    aliases: tuple[str, ...]
    decision: Decision


def register(folder: Path, settings: RegisterSettings, tags: dict[str, str]) -> Registered:
    """Write a release folder as one model version of the active MLflow run; set `challenger`, and `champion` if it is better.

    Args:
        folder: with bundle/, index/ and evaluation/.
        settings: name, and what the champion must reach.
        tags: facts to keep with the version (catalogue version, fingerprint, …).

    """
    client = MlflowClient()
    info = mlflow.pyfunc.log_model(
        name="release",
        python_model=str(RELEASE_CODE),
        artifacts={part: str(folder / part) for part in PARTS},
        pip_requirements=["deeprank"],
        signature=ModelSignature(inputs=Schema([ColSpec("string", "image")])),
        input_example=_example(),
        registered_model_name=settings.name,
    )
    version = int(info.registered_model_version)
    evaluation = Evaluation.load(folder / "evaluation")
    champion = find(settings.name, "champion")
    old = Evaluation.load(fetch(champion) / "evaluation").metrics if champion else None
    decision = decide(evaluation.metrics, old, settings.promotion)
    facts = tags | {
        "promotion": "promoted" if decision.promoted else "held",
        "promotion.reason": decision.reason,
        "promotion.champion_before": str(champion.version) if champion else "none",
        "weights": Bundle(folder / "bundle").weights_hash,
        "fine.recall_at_1": f"{evaluation.metrics['fine.recall_at_1'].value:.4f}",
    }
    for key, value in facts.items():
        client.set_model_version_tag(settings.name, str(version), key, value)
    aliases = ("challenger", "champion") if decision.promoted else ("challenger",)
    for alias in aliases:
        client.set_registered_model_alias(settings.name, alias, str(version))
    return Registered(settings.name, version, aliases, decision)


def _example() -> pd.DataFrame:
    """Return a question in the form that the registered model takes: a grey square."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(buffer.getvalue()).decode()]})


def find(name: str, version_or_alias: str) -> ModelVersion | None:
    """Return a model version by number or alias; None where there is none."""
    client = MlflowClient()
    try:
        if version_or_alias.isdigit():
            return client.get_model_version(name, version_or_alias)
        return client.get_model_version_by_alias(name, version_or_alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def fetch(version: ModelVersion) -> Path:
    """Return the folder of a release, copied from the registry to the state folder once."""
    folder = home() / "releases" / version.name / f"{version.version}-{version.model_id or version.run_id}"
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}", dst_path=str(part))
        (part / "artifacts").rename(folder)
        shutil.rmtree(part)
    return folder


def open_release(model: str) -> Release:
    """Return the release that a command's --model names.

    Args:
        model: a bundle's or release's folder, or models:/NAME@ALIAS, or models:/NAME/VERSION.

    Raises:
        ModelError: there is no such folder, model, alias or version.

    """
    if not model.startswith("models:/"):
        folder = Path(model)
        if not folder.is_dir():
            raise ModelError(f"{model} is no folder; --model wants a bundle's folder, models:/NAME@ALIAS or models:/NAME/VERSION")
        return Release(folder)
    name, separator, wanted = model.removeprefix("models:/").replace("@", "/").partition("/")
    version = find(name, wanted) if separator and wanted else None
    if version is None:
        have = ", ".join(f"{entry['version']} ({entry['aliases'] or 'no alias'})" for entry in versions(name)) if name else ""
        raise ModelError(f"{model} is not in the registry {mlflow.get_tracking_uri()}; it has {have or f'no version of {name}'}")
    return Release(fetch(version))


def versions(name: str = "deeprank") -> list[dict[str, object]]:
    """Return what `deeprank models` prints: each version of a model, newest first."""
    client = MlflowClient()
    found = sorted(client.search_model_versions(f"name='{name}'"), key=lambda version: -int(version.version))
    aliases: dict[str, list[str]] = {}
    if found:
        for alias, number in client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(number), []).append(alias)
    return [
        {
            "version": int(version.version),
            "aliases": ", ".join(sorted(aliases.get(str(version.version), []))),
            "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            "recall_at_1": float(version.tags.get("fine.recall_at_1", "nan")),
            "catalogue_version": version.tags.get("catalogue.version", ""),
            "promotion": version.tags.get("promotion.reason", ""),
            "run_id": version.run_id,
        }
        for version in found
    ]


@dataclass(frozen=True)
class ReleaseSummary:
    """The newest release in words and figures, with two photographs of its index to try it on."""

    version: int
    aliases: str
    reason: str
    metrics: dict[str, Estimate]
    source: str
    example: str
    other: str


def latest_release(name: str) -> ReleaseSummary:
    """Return the newest release of a model.

    Raises:
        ModelError: there is none.

    """
    found = versions(name)
    if not found:
        raise ModelError(f"no release of {name} is registered yet: `deeprank run configs/demo.yaml` makes one")
    newest = found[0]
    release = open_release(f"models:/{name}/{newest['version']}")
    rows = release.index.rows
    pair = rows[rows["label"] == rows["label"].value_counts().index[0]].head(2)
    return ReleaseSummary(
        version=int(str(newest["version"])),
        aliases=str(newest["aliases"]),
        reason=str(newest["promotion"]),
        metrics=Evaluation.load(release.folder / "evaluation").metrics,
        source=MlflowClient().get_run(str(newest["run_id"])).data.tags["catalogue.source"],
        example=pair["path"].iloc[0],
        other=pair["path"].iloc[1],
    )


def release_facts(registered: Registered) -> str:
    """Return a registered release as JSON."""
    facts = {"name": registered.name, "version": registered.version, "aliases": registered.aliases}
    return json.dumps(facts | {"promoted": registered.decision.promoted, "reason": registered.decision.reason}, indent=1)

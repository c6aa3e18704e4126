"""The MLflow registry: one model version is one release, holding bundle, index and evaluation."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from deeprank.errors import ModelError
from deeprank.evaluation.evaluation import Evaluation
from deeprank.evaluation.intervals import Estimate
from deeprank.home import home
from deeprank.models.bundle import Bundle
from deeprank.search.index import Index

PARTS = ("bundle", "index", "evaluation")


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
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A pipeline and a service may want it at once.
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not folder.is_dir():
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
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
            "gate": version.tags.get("gate.state", ""),
            "reason": version.tags.get("gate.reason", ""),
            "run_id": version.run_id,
        }
        for version in found
    ]


@dataclass(frozen=True)
class ReleaseSummary:
    """The newest release in words and figures, with two images of its index to try it on."""

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
        reason=str(newest["reason"]),
        metrics=Evaluation.load(release.folder / "evaluation").metrics,
        source=MlflowClient().get_run(str(newest["run_id"])).data.tags["catalogue.source"],
        example=pair["path"].iloc[0],
        other=pair["path"].iloc[1],
    )

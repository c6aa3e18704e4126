"""Releases in the MLflow registry: one model version is one release with bundle, index and evaluation."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from deeprank.errors import ModelError
from deeprank.evaluation.evaluation import Evaluation
from deeprank.evaluation.intervals import Estimate
from deeprank.home import home
from deeprank.models.bundle import FORMAT as BUNDLE_FORMAT
from deeprank.models.bundle import Bundle
from deeprank.registry.model_uri import ModelUri
from deeprank.search.index import Index
from deeprank.search.index_files import FORMAT as INDEX_FORMAT

RELEASE_FOLDERS = ("bundle", "index", "evaluation")


@dataclass(frozen=True)
class Release:
    """A folder with bundle/, and with index/ and evaluation/ if it comes from the registry; a bare bundle is a release too."""

    folder: Path

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return Bundle(self.folder / "bundle" if (self.folder / "bundle").is_dir() else self.folder)

    @property
    def index(self) -> Index:
        """The index, checked to belong to the model.

        Raises:
            ModelError: there is no index, or it was built with another model.

        """
        index = Index(self.folder / "index")
        index.check_model(self.bundle)
        return index


def find_version(name: str, version_or_alias: str) -> ModelVersion | None:
    """Return a version of a registered model by number or alias; None if there is none."""
    client = MlflowClient()
    try:
        if version_or_alias.isdigit():
            return client.get_model_version(name, version_or_alias)
        return client.get_model_version_by_alias(name, version_or_alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def fetch_release(version: ModelVersion) -> Path:
    """Return the folder of a release; the first call copies it from the registry to the state folder."""
    folder = home() / "releases" / version.name / f"{version.version}-{version.model_id or version.run_id}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A pipeline and a service may fetch the same release at the same time.
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not folder.is_dir():
            partial = folder.with_name(folder.name + ".part")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            mlflow.artifacts.download_artifacts(str(ModelUri(version.name, str(version.version))), dst_path=str(partial))
            (partial / "artifacts").rename(folder)
            shutil.rmtree(partial)
    return folder


def open_version(version: ModelVersion) -> Release:
    """Return the release of a model version.

    Raises:
        ModelError: the release was made by another version of deeprank.

    """
    release = Release(fetch_release(version))
    _require_current_format(release, f"version {version.version} of {version.name}")
    return release


def open_release(model: str) -> Release:
    """Return the release that a command's --model names.

    Args:
        model: folder of a bundle or a release, models:/NAME@ALIAS, or models:/NAME/VERSION.

    Raises:
        ModelError: there is no such folder, model, alias or version, or the release was made by another version of deeprank.

    """
    uri = ModelUri.parse(model)
    if uri is None:
        release = Release(Path(model))
        if not release.folder.is_dir():
            raise ModelError(f"{model} is not a folder; --model takes a bundle's folder, models:/NAME@ALIAS or models:/NAME/VERSION")
        _require_current_format(release, model)
        return release
    version = find_version(uri.name, uri.version_or_alias) if uri.version_or_alias else None
    if version is None:
        registered = list_versions(uri.name) if uri.name else []
        versions = ", ".join(f"{entry.version} ({entry.aliases or 'no alias'})" for entry in registered) or f"no version of {uri.name}"
        raise ModelError(f"{model} is not in the registry {mlflow.get_tracking_uri()}; it has {versions}")
    return open_version(version)


def _require_current_format(release: Release, label: str) -> None:
    """Refuse a release whose bundle or index has another file format than this version reads."""
    formats = {release.bundle.folder / "config.json": BUNDLE_FORMAT, release.folder / "index" / "index.json": INDEX_FORMAT}
    for file, current in formats.items():
        try:
            number = int(json.loads(file.read_text())["format"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a missing or damaged file is reported when it is read
        if number != current:
            age, remedy = ("an older", "train again: `deeprank run`") if number < current else ("a newer", "upgrade deeprank")
            raise ModelError(
                f"{label} was made by {age} version of deeprank: "
                f"{file.name} has format {number}, this version reads format {current}; {remedy}"
            )


@dataclass(frozen=True)
class VersionSummary:
    """One row of `deeprank models`.

    Attributes:
        version: number of the model version.
        aliases: its aliases, joined by commas.
        created: when it was registered (UTC, ISO 8601).
        recall_at_1: fine recall@1 on the test split; NaN if it was not recorded.
        catalogue_version: version of the catalogue it was made from.
        gate_state: state of the gate's decision.
        gate_reason: reason of the gate's decision.
        run_id: MLflow run that registered it.

    """

    version: int
    aliases: str
    created: str
    recall_at_1: float
    catalogue_version: str
    gate_state: str
    gate_reason: str
    run_id: str


def list_versions(name: str = "deeprank") -> list[VersionSummary]:
    """Return the versions of a registered model, newest first."""
    client = MlflowClient()
    versions = sorted(client.search_model_versions(f"name='{name}'"), key=lambda version: -int(version.version))
    aliases: dict[str, list[str]] = {}
    if versions:
        for alias, number in client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(number), []).append(alias)
    return [
        VersionSummary(
            version=int(version.version),
            aliases=", ".join(sorted(aliases.get(str(version.version), []))),
            created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            recall_at_1=float(version.tags.get("fine.recall_at_1", "nan")),
            catalogue_version=version.tags.get("catalogue.version", ""),
            gate_state=version.tags.get("gate.state", ""),
            gate_reason=version.tags.get("gate.reason", ""),
            run_id=version.run_id or "",
        )
        for version in versions
    ]


@dataclass(frozen=True)
class ReleaseSummary:
    """The newest release: its metrics, and two images of one class to try it with.

    Attributes:
        version: number of the model version.
        aliases: its aliases, joined by commas.
        state: state of the gate's decision.
        reason: reason of the gate's decision.
        metrics: metrics of its evaluation, by name.
        source: folder or URI that the catalogue was ingested from.
        example, other_example: paths of two images below `source`, both of the largest class.
        report: path or URI of the report of the run that registered it; empty if the run has none.

    """

    version: int
    aliases: str
    state: str
    reason: str
    metrics: dict[str, Estimate]
    source: str
    example: str
    other_example: str
    report: str


def summarize_latest_release(name: str) -> ReleaseSummary:
    """Return the summary of the newest version of a registered model.

    Raises:
        ModelError: the model has no version.

    """
    versions = list_versions(name)
    if not versions:
        raise ModelError(f"no release of {name} is registered yet: `deeprank run configs/demo.yaml` makes one")
    latest = versions[0]
    release = open_release(str(ModelUri(name, str(latest.version))))
    rows = release.index.rows
    pair = rows[rows["label"] == rows["label"].value_counts().index[0]].head(2)
    return ReleaseSummary(
        version=latest.version,
        aliases=latest.aliases,
        state=latest.gate_state,
        reason=latest.gate_reason,
        metrics=Evaluation.load(release.folder / "evaluation").metrics,
        source=MlflowClient().get_run(latest.run_id).data.tags["catalogue.source"],
        example=pair["path"].iloc[0],
        other_example=pair["path"].iloc[1],
        report=_find_report(latest.run_id),
    )


def _find_report(run_id: str) -> str:
    client = MlflowClient()
    # A run that only refreshed an index writes no report.
    if not any(file.path == "report.html" for file in client.list_artifacts(run_id)):
        return ""
    uri = f"{client.get_run(run_id).info.artifact_uri}/report.html"
    return url2pathname(urlparse(uri).path) if uri.startswith("file:") else uri

"""Registration of a release as one model version in the MLflow registry."""

import base64
import io
import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from PIL import Image
from pydantic import Field

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.evaluation import MAIN_METRIC, Evaluation
from deeprank.evaluation.gate import Decision, PromotionSettings
from deeprank.models.bundle import Bundle
from deeprank.registry.canary import CANARY_FILE, write_canary
from deeprank.registry.champion import set_champion
from deeprank.registry.releases import RELEASE_FOLDERS, Release
from deeprank.settings import Settings

RELEASE_CODE = Path(__file__).with_name("pyfunc_model.py")
# PostgreSQL, as MLflow's store, refuses longer descriptions of a model version.
MAX_DESCRIPTION_CHARS = 5000


class RegisterSettings(Settings):
    """How to register a release.

    Attributes:
        name: name of the registered model.
        promotion: rules by which a release becomes champion.

    """

    name: str = Field("deeprank", pattern=r"^[A-Za-z0-9_.-]+$")
    promotion: PromotionSettings = PromotionSettings()


@dataclass(frozen=True)
class Registered:
    """A registered release.

    Attributes:
        name: name of the registered model.
        version: number of the new model version.
        aliases: aliases set to the new version.
        decision: decision of the gate.

    """

    name: str
    version: int
    aliases: tuple[str, ...]
    decision: Decision

    def save(self, file: Path) -> None:
        """Write name, version, aliases, and the decision's state and reason as JSON."""
        facts = {"name": self.name, "version": self.version, "aliases": self.aliases}
        file.write_text(json.dumps(facts | {"state": self.decision.state, "reason": self.decision.reason}, indent=1))


def register(folder: Path, settings: RegisterSettings, decision: Decision, catalogue: Catalogue, card: str) -> Registered:
    """Write a release as one model version of the active MLflow run, and set the aliases `challenger` and `champion`.

    The version also has gate/ with decision.json, class_groups.csv and model_card.md, and canary.json.

    Args:
        folder: with bundle/, index/ and evaluation/.
        settings: name of the registered model.
        decision: decision of the gate; `champion` moves if it promotes the release.
        catalogue: catalogue version that the release was made from; it is pinned.
        card: model card, in Markdown.

    """
    client, run = MlflowClient(), mlflow.active_run()
    run_id = run.info.run_id if run else ""
    catalogue.pin(f"{settings.name}-{run_id}")
    tags = _version_tags(folder, decision, catalogue)
    version = _registered_by(run_id, settings.name, tags) or _create_version(folder, settings.name, decision, card, tags)
    refreshed = decision.state == "refreshed"
    # A refreshed release has the champion's model, so the challenger stays the release that was trained last.
    if not refreshed:
        client.set_registered_model_alias(settings.name, "challenger", str(version))
    if decision.promoted:
        set_champion(settings.name, version, "refresh" if refreshed else "gate", decision.reason)
    aliases = (*(() if refreshed else ("challenger",)), *(("champion",) if decision.promoted else ()))
    return Registered(settings.name, version, aliases, decision)


def _registered_by(run_id: str, name: str, tags: dict[str, str]) -> int | None:
    """Return the version that an interrupted registration of the same release by the same run has made; None if there is none."""
    versions = MlflowClient().search_model_versions(f"name = '{name}'")
    # With another decision it is another release: the champion has changed since.
    same = ("model.weights_hash", "catalogue.fingerprint", "catalogue.version", "gate.state")
    of_run = [version for version in versions if version.run_id == run_id and all(version.tags.get(key) == tags[key] for key in same)]
    return max((int(version.version) for version in of_run), default=None)


def _create_version(folder: Path, name: str, decision: Decision, card: str, tags: dict[str, str]) -> int:
    """Log the release to the active MLflow run, and register it with its tags and card in one act; returns the new version."""
    client = MlflowClient()
    with tempfile.TemporaryDirectory() as scratch:
        gate, canary = Path(scratch) / "gate", Path(scratch) / CANARY_FILE
        decision.save(gate)
        (gate / "model_card.md").write_text(card)
        write_canary(Release(folder), canary)
        info = mlflow.pyfunc.log_model(
            name="release",
            python_model=str(RELEASE_CODE),
            artifacts={part: str(folder / part) for part in RELEASE_FOLDERS} | {"gate": str(gate), "canary": str(canary)},
            pip_requirements=["deeprank"],
            signature=ModelSignature(inputs=Schema([ColSpec("string", "image")])),
            input_example=_input_example(),
        )
    with suppress(MlflowException):
        # Another run may have created it.
        client.create_registered_model(name)
    version = client.create_model_version(
        name, info.model_uri, run_id=info.run_id, tags=tags, description=_shorten_card(card), model_id=info.model_id
    )
    return int(version.version)


def _version_tags(folder: Path, decision: Decision, catalogue: Catalogue) -> dict[str, str]:
    """Return the tags of the model version, by name."""
    tags = {
        "catalogue.uri": catalogue.uri,
        "catalogue.version": str(catalogue.version),
        "catalogue.fingerprint": catalogue.fingerprint,
        "gate.state": decision.state,
        "gate.reason": decision.reason,
        "model.weights_hash": Bundle(folder / "bundle").weights_hash,
    }
    metrics = Evaluation.load(folder / "evaluation").metrics
    if MAIN_METRIC in metrics:
        tags["fine.recall_at_1"] = f"{metrics[MAIN_METRIC].value:.4f}"
    return tags | {name: f"{value:.6g}" for name, value in decision.metrics().items()}


def _shorten_card(card: str) -> str:
    """Return a model card, cut after a line if it is longer than MLflow's store allows."""
    if len(card) <= MAX_DESCRIPTION_CHARS:
        return card
    note = "\n\nThe full card is gate/model_card.md of this release."
    return card[: MAX_DESCRIPTION_CHARS - len(note)].rpartition("\n")[0] + note


def _input_example() -> pd.DataFrame:
    """Return an example input of the registered model: a gray square."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "gray").save(buffer, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(buffer.getvalue()).decode()]})

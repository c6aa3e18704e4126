"""A new release: judged against the champion, written to the registry as one model version, made champion if the gate says so."""

import base64
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from PIL import Image
from pydantic import Field

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.evaluation.bundle_evaluation import embed_and_evaluate
from deeprank.evaluation.evaluation import Evaluation
from deeprank.evaluation.gate import Decision, PromotionSettings, decide
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.plotting.evaluation import gained_and_lost
from deeprank.registry.canary import FILE as CANARY
from deeprank.registry.canary import write_canary
from deeprank.registry.champion import set_champion
from deeprank.registry.releases import PARTS, Release, fetch, find
from deeprank.reporting import Reporter
from deeprank.settings import Settings
from deeprank.triplets.sampling import Triplets

RELEASE_CODE = Path(__file__).with_name("pyfunc_model.py")
# Characters that MLflow's databases keep of a description; PostgreSQL refuses more.
DESCRIPTION = 5000
# From so large a share of an index's images that are missing, a person is to say that it is right.
MOST_GONE = 0.5


class RegisterSettings(Settings):
    """Under which name to register, and what the champion must reach."""

    name: str = Field("deeprank", pattern=r"^[A-Za-z0-9_.-]+$")
    promotion: PromotionSettings = PromotionSettings()


@dataclass(frozen=True)
class Registered:
    """What registering came to."""

    name: str
    version: int
    aliases: tuple[str, ...]
    decision: Decision

    def save(self, file: Path) -> None:
        """Write it as JSON."""
        facts = {"name": self.name, "version": self.version, "aliases": self.aliases}
        file.write_text(json.dumps(facts | {"state": self.decision.state, "reason": self.decision.reason}, indent=1))


def evaluate_gate(
    catalogue: Catalogue,
    triplets: Triplets,
    evaluation: Evaluation,
    settings: RegisterSettings,
    reporter: Reporter,
    problems: Sequence[str] = (),
) -> Decision:
    """Hold the gate: the champion answers today's test queries too, and query by query the new model must be better.

    Reports gate.* metrics, gate.state and gate.reason, and the picture gained_and_lost.

    Args:
        catalogue: today's.
        triplets: of its test split.
        evaluation: of the new model, on the same test split.
        settings: name and rules.
        reporter: hears the figures.
        problems: why no comparison would be valid, in words.

    """
    champion = find(settings.name, "champion")
    before, found = None, list(problems)
    if champion is not None:
        try:
            bundle = Release(fetch(champion)).bundle
            before = embed_and_evaluate(catalogue, triplets, bundle, f"champion, version {champion.version}").queries
        except ModelError as error:
            found.append(f"the champion, version {champion.version}, cannot be loaded: {error}")
    decision = decide(evaluation.queries, before, evaluation.queries["group"].to_numpy(), settings.promotion, found)
    for name, value in decision.figures().items():
        reporter.metric(name, value)
    reporter.note("gate.state", decision.state)
    reporter.note("gate.reason", decision.reason)
    reporter.note("gate.champion_before", str(champion.version) if champion else "none")
    if before is not None and champion is not None:
        pictured = gained_and_lost(catalogue, evaluation.queries, before, before_name=f"champion, version {champion.version}")
        reporter.figure("gained_and_lost", pictured)
    return decision


def refresh(name: str, catalogue: Catalogue, reporter: Reporter) -> Registered | None:
    """Register the champion with an index of today's images: what came is embedded and added, what is gone is taken out.

    The model, its evaluation and its clusters stay; the new version is the champion at once. Reports index.added, .removed,
    .share_moved, .farther, and the note index.rebuild where clusters and index should be built anew.

    Args:
        name: in the registry.
        catalogue: today's.
        reporter: hears the figures.

    Returns:
        None where the index holds today's images already.

    Raises:
        ModelError: there is no champion, or more than half of what it finds is not in the catalogue.

    """
    champion = find(name, "champion")
    if champion is None:
        raise ModelError(f"{name} has no champion whose index could be refreshed: `deeprank run` makes one")
    release = Release(fetch(champion))
    bundle, index = release.bundle, release.index
    if index.facts["catalogue"]["fingerprint"] == catalogue.fingerprint:
        reporter.note("index.rebuild", index.moved.rebuild or "no need")
        return None
    gone = int((~index.rows["id"].isin(catalogue.frame["id"])).sum())
    # A disk that was not mounted, or another folder: nobody is there at night to wonder.
    if gone > MOST_GONE * len(index.rows):
        raise ModelError(
            f"{gone:,} of the {len(index.rows):,} images that version {champion.version} of {name} finds are not in the catalogue "
            f"{catalogue.uri}, version {catalogue.version}: its index stays as it is; if they are gone for good, train anew: `deeprank run`"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in ("bundle", "evaluation"):
            shutil.copytree(release.folder / part, folder / part)
        changed = index.change(
            folder / "index", catalogue, lambda rows: catalogue_embeddings(bundle, catalogue, rows, "embedding what is new")
        )
        before, moved = index.moved, changed.moved
        added, removed = moved.added - before.added, moved.removed - before.removed
        for figure, value in {"added": added, "removed": removed, "share_moved": moved.share, "farther": moved.farther}.items():
            reporter.metric(f"index.{figure}", value)
        reporter.note("index.rebuild", moved.rebuild or "no need")
        reason = f"the model of version {champion.version}, its index with {added:,} images more and {removed:,} fewer"
        card = (release.folder / "gate" / "model_card.md").read_text()
        if champion.tags.get("gate.state") == "refreshed":
            card = card.partition("\n\n")[2]
        return register(folder, RegisterSettings(name=name), Decision("refreshed", True, reason), catalogue, f"{reason}.\n\n{card}")


def _description(card: str) -> str:
    """Return as much of a model card as MLflow keeps, in whole lines."""
    if len(card) <= DESCRIPTION:
        return card
    more = "\n\nThe whole card is gate/model_card.md of this release."
    return card[: DESCRIPTION - len(more)].rpartition("\n")[0] + more


def register(folder: Path, settings: RegisterSettings, decision: Decision, catalogue: Catalogue, card: str) -> Registered:
    """Write a release folder as one model version of the active MLflow run; set `challenger`, and `champion` as was decided.

    The version also holds gate/: decision.json, groups.csv and model_card.md.

    Args:
        folder: with bundle/, index/ and evaluation/.
        settings: the name.
        decision: of the gate.
        catalogue: what it was made from; that version is pinned.
        card: the model card, Markdown.

    """
    client = MlflowClient()
    with tempfile.TemporaryDirectory() as scratch:
        gate = Path(scratch) / "gate"
        decision.save(gate)
        (gate / "model_card.md").write_text(card)
        canary = Path(scratch) / CANARY
        write_canary(Release(folder), canary)
        info = mlflow.pyfunc.log_model(
            name="release",
            python_model=str(RELEASE_CODE),
            artifacts={part: str(folder / part) for part in PARTS} | {"gate": str(gate), "canary": str(canary)},
            pip_requirements=["deeprank"],
            signature=ModelSignature(inputs=Schema([ColSpec("string", "image")])),
            input_example=_example(),
            registered_model_name=settings.name,
        )
    version = int(info.registered_model_version)
    catalogue.pin(f"{settings.name}-{version}")
    facts = {
        "catalogue.uri": catalogue.uri,
        "catalogue.version": str(catalogue.version),
        "catalogue.fingerprint": catalogue.fingerprint,
        "gate.state": decision.state,
        "gate.reason": decision.reason,
        "weights": Bundle(folder / "bundle").weights_hash,
        "fine.recall_at_1": f"{Evaluation.load(folder / 'evaluation').metrics['fine.recall_at_1'].value:.4f}",
    }
    facts |= {name: f"{value:.6g}" for name, value in decision.figures().items()}
    for key, value in facts.items():
        client.set_model_version_tag(settings.name, str(version), key, value)
    client.update_model_version(settings.name, str(version), _description(card))
    refreshed = decision.state == "refreshed"
    # What was trained last stays the challenger: a refreshed champion challenges nobody.
    if not refreshed:
        client.set_registered_model_alias(settings.name, "challenger", str(version))
    if decision.promoted:
        set_champion(settings.name, version, "refresh" if refreshed else "gate", decision.reason)
    aliases = (*(() if refreshed else ("challenger",)), *(("champion",) if decision.promoted else ()))
    return Registered(settings.name, version, aliases, decision)


def _example() -> pd.DataFrame:
    """Return a question in the form that the registered model takes: a grey square."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(buffer.getvalue()).decode()]})

"""Bundle, index and evaluation → one model version in the registry, compared with the champion by the gate."""

import logging
import shutil
from typing import Annotated

from zenml import get_step_context

from deeprank.evaluation.leakage import unresolved_leakage
from deeprank.registry.gate import evaluate_gate
from deeprank.registry.register import RELEASE_CODE, RegisterSettings, register
from deeprank.report.model_card import model_card
from deeprank.reporting import Record
from steps.artifacts.base import RECORD, new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.evaluation import EvaluationArtifact
from steps.artifacts.index import IndexArtifact
from steps.artifacts.release import ReleaseArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.step import pipeline_step
from steps.tracking import flatten, registry_uri, settings_of

logger = logging.getLogger(__name__)


@pipeline_step(__file__, RELEASE_CODE, cache_func=registry_uri)
def register_step(
    ingested: CatalogueArtifact,
    catalogue: CatalogueArtifact,
    triplets: TripletsArtifact,
    bundle: BundleArtifact,
    index: IndexArtifact,
    evaluation: EvaluationArtifact,
    other: CatalogueArtifact,
    settings: RegisterSettings,
    output: Annotated[ReleaseArtifact, "release"],
    reporter: Record,
) -> None:
    """Register the release; it becomes champion if the gate passes it."""
    release, images = new_folder(), catalogue.open()
    for name, artifact in {"bundle": bundle, "index": index, "evaluation": evaluation}.items():
        shutil.copytree(artifact.folder, release / name, ignore=shutil.ignore_patterns(RECORD))
    problems, other_kind = unresolved_leakage(catalogue.record), None if other.empty else other.open()
    decision = evaluate_gate(images, triplets.open(), evaluation.open(), settings, reporter, problems, other_kind)
    records = [artifact.record for artifact in (ingested, catalogue, triplets, bundle, evaluation, index)] + [reporter]
    facts, parameters = bundle.open().facts, flatten(settings_of(get_step_context().pipeline_run))
    card = model_card(settings.name, records, parameters, int(facts["images"]), int(facts["classes"]))
    registered = register(release, settings, decision, images, card)
    logger.info("registered %s version %d (%s): %s", registered.name, registered.version, ", ".join(registered.aliases), decision.reason)
    reporter.note("release.version", str(registered.version))
    reporter.note("release.aliases", ", ".join(registered.aliases))
    registered.save(output.folder / "release.json")

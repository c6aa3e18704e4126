"""Bundle, index and evaluation → one model version in the registry, judged against the champion."""

import logging
import shutil
from typing import Annotated

from zenml import get_step_context

from deeprank.evaluation.leakage import unresolved
from deeprank.registry.register import RELEASE_CODE, RegisterSettings, evaluate_gate, register
from deeprank.report.report import model_card
from steps.artifacts.base import RECORD, new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.evaluation import EvaluationArtifact
from steps.artifacts.index import IndexArtifact
from steps.artifacts.release import ReleaseArtifact
from steps.artifacts.triplets import TripletsArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked, flatten, registry_uri, settings_of

logger = logging.getLogger(__name__)


@pipeline_step(__file__, RELEASE_CODE, told=registry_uri)
def register_step(
    ingested: CatalogueArtifact,
    catalogue: CatalogueArtifact,
    triplets: TripletsArtifact,
    bundle: BundleArtifact,
    index: IndexArtifact,
    evaluation: EvaluationArtifact,
    settings: RegisterSettings,
) -> Annotated[ReleaseArtifact, "release"]:
    """Register the release; the champion changes hands where the new one is better."""
    folder, release = new_folder(), new_folder()
    for name, part in {"bundle": bundle, "index": index, "evaluation": evaluation}.items():
        shutil.copytree(part.folder, release / name, ignore=shutil.ignore_patterns(RECORD))
    reporter, images = Tracked(folder), catalogue.open()
    decision = evaluate_gate(images, triplets.open(), evaluation.open(), settings, reporter, unresolved(catalogue.record))
    told = [part.record for part in (ingested, catalogue, triplets, bundle, evaluation, index)] + [reporter]
    facts = bundle.open().facts
    card = model_card(
        settings.name, told, flatten(settings_of(get_step_context().pipeline_run)), int(facts["images"]), int(facts["classes"])
    )
    registered = register(release, settings, decision, images, card)
    logger.info("registered %s version %d (%s): %s", registered.name, registered.version, ", ".join(registered.aliases), decision.reason)
    reporter.note("release.version", str(registered.version))
    reporter.note("release.aliases", ", ".join(registered.aliases))
    reporter.save()
    registered.save(folder / "release.json")
    return ReleaseArtifact(folder)

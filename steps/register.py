"""Bundle, index and evaluation → one model version in the registry."""

import logging
import shutil
from typing import Annotated

from deeprank.serving.registry import RELEASE_CODE, RegisterSettings, register, release_facts
from steps.artifacts.base import RECORD, new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.evaluation import EvaluationArtifact
from steps.artifacts.index import IndexArtifact
from steps.artifacts.release import ReleaseArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked

logger = logging.getLogger(__name__)


@pipeline_step(__file__, RELEASE_CODE)
def register_step(
    catalogue: CatalogueArtifact, bundle: BundleArtifact, index: IndexArtifact, evaluation: EvaluationArtifact, settings: RegisterSettings
) -> Annotated[ReleaseArtifact, "release"]:
    """Register the release; the champion changes hands where the new one is better."""
    release = new_folder()
    for name, part in {"bundle": bundle, "index": index, "evaluation": evaluation}.items():
        shutil.copytree(part.folder, release / name, ignore=shutil.ignore_patterns(RECORD))
    photographs = catalogue.open()
    tags = {
        "catalogue.uri": photographs.uri,
        "catalogue.version": str(photographs.version),
        "catalogue.fingerprint": photographs.fingerprint,
    }
    registered = register(release, settings, tags)
    logger.info(
        "registered %s version %d (%s): %s", registered.name, registered.version, ", ".join(registered.aliases), registered.decision.reason
    )
    folder = new_folder()
    reporter = Tracked(folder)
    reporter.note("release.version", str(registered.version))
    reporter.note("release.aliases", ", ".join(registered.aliases))
    reporter.note("release.reason", registered.decision.reason)
    reporter.save()
    (folder / "release.json").write_text(release_facts(registered))
    return ReleaseArtifact(folder)

"""Catalogue → the same, once nothing of train is known to lie in val or test."""

from typing import Annotated

from deeprank.evaluation.leakage import LeakageSettings, check_leaks
from steps.artifacts.base import new_folder
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked


@pipeline_step(__file__)
def leakage_step(catalogue: CatalogueArtifact, settings: LeakageSettings) -> Annotated[CatalogueArtifact, "checked_catalogue"]:
    """Look for images that two splits share; stop, warn or leave them out."""
    folder = new_folder()
    reporter = Tracked(folder)
    checked = check_leaks(catalogue.open(), settings, reporter)
    reporter.note("catalogue.version", str(checked.version))
    reporter.note("catalogue.fingerprint", checked.fingerprint)
    reporter.save()
    return CatalogueArtifact.write(folder, checked)

"""Catalogue → the same catalogue, checked for train images in val or test."""

from typing import Annotated

from deeprank.evaluation.leakage import LeakageSettings, check_leakage
from deeprank.reporting import Record
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step


@pipeline_step(__file__)
def leakage_step(
    catalogue: CatalogueArtifact, settings: LeakageSettings, output: Annotated[CatalogueArtifact, "checked_catalogue"], reporter: Record
) -> None:
    """Find images that two splits share; stop, warn or exclude them."""
    checked = check_leakage(catalogue.open(), settings, reporter)
    reporter.note("catalogue.version", str(checked.version))
    reporter.note("catalogue.fingerprint", checked.fingerprint)
    output.write(checked)

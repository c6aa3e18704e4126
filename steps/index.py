"""Model bundle and clusters → the index, with the fastest search parameters that reach the required recall."""

from typing import Annotated

from deeprank.reporting import Record
from deeprank.search.autotune import IndexSettings
from deeprank.search.build import build_index
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.clusters import ClustersArtifact
from steps.artifacts.index import IndexArtifact
from steps.step import pipeline_step


@pipeline_step(__file__)
def index_step(
    catalogue: CatalogueArtifact,
    bundle: BundleArtifact,
    clusters: ClustersArtifact,
    settings: IndexSettings,
    output: Annotated[IndexArtifact, "index"],
    reporter: Record,
) -> None:
    """Choose kind and search parameters, and build the index."""
    build_index(output.folder, catalogue.open(), bundle.open(), clusters.open(), settings, reporter)

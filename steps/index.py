"""Model bundle and clusters → the index, searched in the fastest way that finds enough."""

from typing import Annotated

from deeprank.search.autotune import IndexSettings
from deeprank.search.build import build_index
from steps.artifacts.base import new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.clusters import ClustersArtifact
from steps.artifacts.index import IndexArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked


@pipeline_step(__file__)
def index_step(
    catalogue: CatalogueArtifact, bundle: BundleArtifact, clusters: ClustersArtifact, settings: IndexSettings
) -> Annotated[IndexArtifact, "index"]:
    """Choose how to search, and index."""
    folder = new_folder()
    reporter = Tracked(folder)
    build_index(folder, catalogue.open(), bundle.open(), clusters.open(), settings, reporter)
    reporter.save()
    return IndexArtifact(folder)

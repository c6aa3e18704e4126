"""Model bundle → embeddings of the whole catalogue, their clusters, and the index."""

from typing import Annotated

from deeprank.search.build import build_index
from deeprank.search.cluster import ClusterSettings
from steps.artifacts.base import new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.index import IndexArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked


@pipeline_step(__file__)
def cluster_step(catalogue: CatalogueArtifact, bundle: BundleArtifact, settings: ClusterSettings) -> Annotated[IndexArtifact, "index"]:
    """Embed, cluster and index."""
    folder = new_folder()
    reporter = Tracked(folder)
    build_index(folder, catalogue.open(), bundle.open(), settings, reporter)
    reporter.save()
    return IndexArtifact(folder)

"""Model bundle → clusters of the whole catalogue, in sections."""

from typing import Annotated

from deeprank.search.build import cluster_catalogue
from deeprank.search.clusters import ClusterSettings
from steps.artifacts.base import new_folder
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.clusters import ClustersArtifact
from steps.step import pipeline_step
from steps.tracking import Tracked


@pipeline_step(__file__)
def cluster_step(
    catalogue: CatalogueArtifact, bundle: BundleArtifact, settings: ClusterSettings
) -> Annotated[ClustersArtifact, "clusters"]:
    """Embed and cluster."""
    folder = new_folder()
    reporter = Tracked(folder)
    cluster_catalogue(catalogue.open(), bundle.open(), settings, reporter).save(folder)
    reporter.save()
    return ClustersArtifact(folder)

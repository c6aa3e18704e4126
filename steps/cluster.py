"""Model bundle → clusters of all images of the catalogue."""

from typing import Annotated

from deeprank.reporting import Record
from deeprank.search.build import cluster_catalogue
from deeprank.search.clustering import ClusterSettings
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.artifacts.clusters import ClustersArtifact
from steps.step import pipeline_step


@pipeline_step(__file__)
def cluster_step(
    catalogue: CatalogueArtifact,
    bundle: BundleArtifact,
    settings: ClusterSettings,
    output: Annotated[ClustersArtifact, "clusters"],
    reporter: Record,
) -> None:
    """Cluster the embeddings of the images."""
    cluster_catalogue(catalogue.open(), bundle.open(), settings, reporter).save(output.folder)

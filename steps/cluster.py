"""Model bundle → embeddings of the whole catalogue, their clusters, and the index."""

from typing import Annotated

from zenml import step

from deeprank.search.build import build_index
from deeprank.search.cluster import ClusterSettings
from steps.artifacts import BundleArtifact, CatalogueArtifact, IndexArtifact, new_folder
from steps.caching import cache_on_sources
from steps.materializers import FolderMaterializer
from steps.tracking import SETTINGS, Tracked


@step(
    cache_policy=cache_on_sources(__file__),
    experiment_tracker=True,
    settings=SETTINGS,
    output_materializers=FolderMaterializer,
    name="cluster",
)
def cluster_step(catalogue: CatalogueArtifact, bundle: BundleArtifact, settings: ClusterSettings) -> Annotated[IndexArtifact, "index"]:
    """Embed, cluster and index."""
    folder = new_folder()
    reporter = Tracked(folder)
    build_index(folder, catalogue.open(), bundle.open(), settings, reporter)
    reporter.save()
    return IndexArtifact(folder)

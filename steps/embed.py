"""Model bundle → embeddings of all images of the catalogue, stored beside it; evaluation, clusters and index read them there."""

from typing import Annotated

from deeprank.models.embedding_table import embed_missing
from deeprank.reporting import Record
from steps.artifacts.base import Artifact
from steps.artifacts.bundle import BundleArtifact
from steps.artifacts.catalogue import CatalogueArtifact
from steps.step import pipeline_step


@pipeline_step(__file__)
def embed_step(catalogue: CatalogueArtifact, bundle: BundleArtifact, output: Annotated[Artifact, "embeddings"], reporter: Record) -> None:
    """Embed the images that have no embedding of this model yet."""
    images = catalogue.open()
    uri, count = embed_missing(bundle.open(), images, "embedding, trained model")
    reporter.metric("embed.images", count)
    reporter.note("embed.table", uri)
    (output.folder / "table.txt").write_text(f"{uri}\n{images.fingerprint}\n")

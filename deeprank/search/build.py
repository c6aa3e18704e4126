"""From a catalogue and a model to clusters, and to an index."""

from pathlib import Path

import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_table import catalogue_embeddings, embedding_table_uri
from deeprank.plotting.clusters import report_clusters
from deeprank.reporting import Reporter
from deeprank.search.autotune import IndexSettings, choose
from deeprank.search.cluster_page import walk
from deeprank.search.clusters import Clusters, ClusterSettings, cluster
from deeprank.search.faiss_index import Vectors
from deeprank.search.index import Index
from deeprank.search.lance_index import LanceIndex


def embed_all(catalogue: Catalogue, bundle: Bundle) -> Vectors:
    """Return the embeddings of every image of a catalogue (len(frame), d); only what is new for this model is computed."""
    return catalogue_embeddings(bundle, catalogue, np.arange(len(catalogue.frame)), "embedding the catalogue")


def cluster_catalogue(catalogue: Catalogue, bundle: Bundle, settings: ClusterSettings, reporter: Reporter) -> Clusters:
    """Cluster every image, and report clusters.*, their pictures, and clusters.html to walk through."""
    embeddings = embed_all(catalogue, bundle)
    clusters = cluster(embeddings, settings)
    report_clusters(catalogue, embeddings, clusters, reporter)
    reporter.attach("clusters.html", walk(catalogue, embeddings, clusters))
    return clusters


def build_index(
    folder: Path, catalogue: Catalogue, bundle: Bundle, clusters: Clusters, settings: IndexSettings, reporter: Reporter
) -> Index:
    """Choose how to search, and write the index of every image; reports index.*, see `choose`."""
    embeddings = embed_all(catalogue, bundle)
    table = None
    if settings.backend == "lance":
        table = LanceIndex.build(embedding_table_uri(bundle, catalogue), catalogue.frame["id"].tolist(), clusters.centroids)
    choice = choose(embeddings, clusters, settings, reporter, table)
    return Index.build(folder, bundle, catalogue, embeddings, clusters, choice.point, choice.structure)

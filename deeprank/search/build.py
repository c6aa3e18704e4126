"""From a catalogue and a model to clusters and to an index, with what both report."""

from pathlib import Path

import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_table import catalogue_embeddings, embedding_table_uri
from deeprank.plotting.clusters import MAX_TREE_LEAVES, cluster_map, cluster_montage, cluster_tree, silhouette_curve
from deeprank.reporting import Reporter
from deeprank.row_numbers import CatalogueRows
from deeprank.search.arrays import Vectors
from deeprank.search.autotune import IndexSettings, autotune
from deeprank.search.cluster_labels import majority_folder
from deeprank.search.cluster_page import cluster_page
from deeprank.search.clustering import ClusterSettings, cluster_embeddings, num_clusters_reason
from deeprank.search.clusters import Clusters
from deeprank.search.index import Index
from deeprank.search.index_build import write_index
from deeprank.search.lance_index import LanceIndex
from deeprank.search.num_clusters import silhouette

MAX_MONTAGE_CLUSTERS = 10


def cluster_catalogue(catalogue: Catalogue, bundle: Bundle, settings: ClusterSettings, reporter: Reporter) -> Clusters:
    """Cluster all images of a catalogue, and report the metrics clusters.*, the figures cluster_* and the file clusters.html."""
    embeddings = _embed_all(catalogue, bundle)
    clusters = cluster_embeddings(embeddings, settings)
    report_clusters(catalogue, embeddings, clusters, reporter)
    reporter.attach("clusters.html", cluster_page(catalogue, embeddings, clusters))
    return clusters


def build_index(
    folder: Path, catalogue: Catalogue, bundle: Bundle, clusters: Clusters, settings: IndexSettings, reporter: Reporter
) -> Index:
    """Choose the search parameters, write the index of all images of a catalogue, and report what `autotune` reports."""
    embeddings = _embed_all(catalogue, bundle)
    lance_index = None
    if settings.backend == "lance":
        lance_index = LanceIndex.build(embedding_table_uri(bundle, catalogue), catalogue.frame["id"].tolist(), clusters.centroids)
    result = autotune(embeddings, clusters, settings, reporter, lance_index, bundle.load()[0].query_forms)
    return write_index(folder, bundle, catalogue, embeddings, clusters, result.search_params, result.structure)


def _embed_all(catalogue: Catalogue, bundle: Bundle) -> Vectors:
    """Return the embeddings of every row of a catalogue's frame; only those that are not in the table are computed."""
    return catalogue_embeddings(bundle, catalogue, CatalogueRows(np.arange(len(catalogue.frame))), "embedding the catalogue")


def report_clusters(catalogue: Catalogue, embeddings: Vectors, clusters: Clusters, reporter: Reporter) -> None:
    """Report the metrics clusters.count, .sections, .purity, .ami and .silhouette, the note clusters.reason, and the figures.

    Args:
        catalogue: of the images.
        embeddings: of every row of the catalogue's frame.
        clusters: of the embeddings.
        reporter: that receives the above.

    """
    labels = catalogue.frame["label"]
    label_numbers = np.unique(labels, return_inverse=True)[1]
    reporter.metric("clusters.count", len(clusters.centroids))
    reporter.metric("clusters.sections", len(clusters.section_nodes))
    reporter.metric("clusters.purity", clusters.purity(label_numbers))
    reporter.metric("clusters.ami", clusters.ami(label_numbers))
    reporter.metric("clusters.silhouette", silhouette(embeddings, clusters.assignments))
    reporter.note("clusters.reason", num_clusters_reason(clusters.silhouettes))
    if len(clusters.silhouettes):
        reporter.figure("cluster_silhouettes", silhouette_curve(clusters.silhouettes))
    leaves, leaf_of_cluster = clusters.cut(max(MAX_TREE_LEAVES, len(clusters.section_nodes)))
    leaf_names = majority_folder(labels, leaf_of_cluster[clusters.assignments])
    reporter.figure("cluster_tree", cluster_tree(catalogue, clusters, leaves, leaf_names))
    reporter.figure("cluster_map", cluster_map(catalogue, embeddings, clusters))
    largest = np.argsort(-clusters.sizes[: len(clusters.centroids)], kind="stable")[:MAX_MONTAGE_CLUSTERS]
    captions = [f"cluster {cluster}, {clusters.sizes[cluster]:,}" for cluster in largest]
    reporter.figure("cluster_montage", cluster_montage(catalogue, [clusters.members(embeddings, number) for number in largest], captions))

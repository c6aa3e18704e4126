"""From a catalogue and a model to clusters and an index."""

from pathlib import Path

import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.figures import cluster_montage
from deeprank.model.bundle import Bundle
from deeprank.model.embedding import embed_catalogue
from deeprank.reporting import Reporter
from deeprank.search.cluster import ClusterSettings, cluster
from deeprank.search.index import Index

SHOWN = 10


def build_index(folder: Path, catalogue: Catalogue, bundle: Bundle, settings: ClusterSettings, reporter: Reporter) -> Index:
    """Embed every photograph, cluster the embeddings, write the index, and report clusters.count, .purity, .ami and a montage."""
    net, preprocessing = bundle.load()
    embeddings = embed_catalogue(net, preprocessing, catalogue, np.arange(len(catalogue.frame)), "embedding the catalogue")
    clusters = cluster(embeddings, settings)
    index = Index.build(folder, bundle, catalogue, embeddings, clusters, settings)
    labels = np.unique(catalogue.frame["label"], return_inverse=True)[1]
    reporter.metric("clusters.count", len(clusters.centroids))
    reporter.metric("clusters.purity", clusters.purity(labels))
    reporter.metric("clusters.ami", clusters.ami(labels))
    reporter.note("index.kind", str(index.facts["kind"]))
    sizes = np.bincount(clusters.assigned, minlength=len(clusters.centroids))
    largest = np.argsort(-sizes, kind="stable")[:SHOWN]
    captions = [f"cluster {number}, {sizes[number]}" for number in largest]
    reporter.figure("cluster_montage", cluster_montage(catalogue, [clusters.members(embeddings, number) for number in largest], captions))
    return index

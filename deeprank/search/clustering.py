"""Clustering of embeddings: k-means, the number of clusters, and the tree over them."""

import numpy as np
import pandas as pd
from pydantic import Field

from deeprank.search.arrays import Vectors
from deeprank.search.cluster_tree import link_clusters, node_representatives
from deeprank.search.clusters import Clusters
from deeprank.search.kmeans import kmeans
from deeprank.search.num_clusters import silhouettes_by_k
from deeprank.settings import Settings


class ClusterSettings(Settings):
    """How to cluster the embeddings.

    Attributes:
        n_clusters: number of clusters at most; 0: the number with the greatest silhouette.
        iterations: number of iterations of k-means.
        seed: random seed of k-means and of the sample for the silhouette.

    """

    n_clusters: int = Field(0, ge=0)
    iterations: int = Field(25, ge=1)
    seed: int = 0


def cluster_embeddings(embeddings: Vectors, settings: ClusterSettings) -> Clusters:
    """Cluster embeddings by spherical k-means, and join the clusters to a tree.

    Args:
        embeddings: (n, d) of unit length, n > 0.
        settings: number of clusters, iterations and seed.

    """
    if settings.n_clusters:
        silhouettes = pd.DataFrame({"n_clusters": [], "silhouette": []})
    else:
        silhouettes = silhouettes_by_k(embeddings, iterations=settings.iterations, seed=settings.seed)
    if len(silhouettes):
        k = int(silhouettes["n_clusters"][silhouettes["silhouette"].argmax()])
    else:
        k = min(settings.n_clusters or round(np.sqrt(len(embeddings))), len(embeddings))
    centroids, assignments = kmeans(embeddings, k, iterations=settings.iterations, seed=settings.seed)
    centroids, assignments, linkage_matrix = link_clusters(centroids, assignments)
    representatives = node_representatives(embeddings, assignments, linkage_matrix)
    return Clusters(centroids, assignments, linkage_matrix, representatives, silhouettes)


def num_clusters_reason(silhouettes: pd.DataFrame) -> str:
    """Return why there are as many clusters as there are, in words; `silhouettes` as of `Clusters`."""
    if not len(silhouettes):
        return "set manually, or the square root of the number of images if there are too few of them to compare silhouettes"
    k, value = silhouettes.loc[silhouettes["silhouette"].idxmax()]
    lowest, highest = silhouettes["n_clusters"].min(), silhouettes["n_clusters"].max()
    return f"{k:.0f} has the greatest silhouette, {value:.4f}, of {len(silhouettes)} numbers from {lowest} to {highest}"

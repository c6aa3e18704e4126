"""Clustering and indexing a catalogue report what was chosen, and write what they return."""

from pathlib import Path

import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.reporting import Record
from deeprank.search.autotune import IndexSettings
from deeprank.search.build import build_index, cluster_catalogue, report_clusters
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.clusters import Clusters
from deeprank.search.num_clusters import silhouette
from tests.search.builders import SIX_CLUSTERS


def test_clusters_and_index_are_built_and_reported(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    clusters = cluster_catalogue(catalogue, bundle, SIX_CLUSTERS, record)
    index = build_index(tmp_path / "i", catalogue, bundle, clusters, IndexSettings(), record)
    metrics = {point.name: point.value for point in record.points}
    assert metrics["clusters.count"] == 6
    assert 0 < metrics["clusters.purity"] <= 1
    assert -1 <= metrics["clusters.ami"] <= 1
    assert metrics["index.recall_at_10"] == 1
    assert record.notes["index.kind"] == "exact"
    assert "comparing with all 48 images takes" in record.notes["index.reason"]
    assert {"cluster_montage", "index_autotune"} <= set(record.figures)
    assert {file.name for file in record.attached} == {"clusters.html", "index_autotune.csv"}
    assert index.search(embeddings[5:6], 1)[0]["path"].tolist() == [catalogue.frame["path"][5]]
    assert (Clusters.load(tmp_path / "i").assignments == index.rows["cluster"]).all()


def test_all_metrics_and_figures_of_clusters_are_reported(catalogue: Catalogue, embeddings: np.ndarray, tmp_path: Path) -> None:
    record = Record(tmp_path)
    clusters = cluster_embeddings(embeddings, ClusterSettings())
    report_clusters(catalogue, embeddings, clusters, record)
    labels = np.unique(catalogue.frame["label"], return_inverse=True)[1]
    assert {point.name: point.value for point in record.points} == {
        "clusters.count": len(clusters.centroids),
        "clusters.sections": len(clusters.section_nodes),
        "clusters.purity": clusters.purity(labels),
        "clusters.ami": clusters.ami(labels),
        "clusters.silhouette": silhouette(embeddings, clusters.assignments),
    }
    assert set(record.figures) == {"cluster_silhouettes", "cluster_tree", "cluster_map", "cluster_montage"}
    reason = f"{len(clusters.centroids)} has the greatest silhouette, "
    assert record.notes["clusters.reason"].startswith(reason)
    assert f"of {len(clusters.silhouettes)} numbers" in record.notes["clusters.reason"]


@pytest.mark.parametrize("n_clusters", [1, 2])
def test_given_number_of_clusters_has_no_silhouette_figure(
    catalogue: Catalogue, embeddings: np.ndarray, tmp_path: Path, n_clusters: int
) -> None:
    record = Record(tmp_path)
    report_clusters(catalogue, embeddings, cluster_embeddings(embeddings, ClusterSettings(n_clusters=n_clusters)), record)
    assert set(record.figures) == {"cluster_tree", "cluster_map", "cluster_montage"}
    assert record.notes["clusters.reason"].startswith("set manually")

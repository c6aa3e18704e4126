"""FAISS structures visit the lists and cells that their parameters say."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.search.clustering import cluster_embeddings
from deeprank.search.faiss_index import build_structure
from deeprank.search.index_build import write_index
from deeprank.search.search_params import SearchParams
from tests.search.builders import SIX_CLUSTERS


def test_two_levels_visit_nearest_cells_of_nearest_clusters(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    """The clusters are divided into cells: a query is compared with the cells of the nearest cluster, then with the nearest cell."""
    clusters = cluster_embeddings(embeddings, SIX_CLUSTERS)
    search_params = SearchParams(kind="two_level_ivf", nprobe=1, coarse_nprobe=1)
    index = write_index(tmp_path, bundle, catalogue, embeddings, clusters, search_params)
    structure = build_structure("two_level_ivf", embeddings, clusters)
    cells = np.asarray(faiss.downcast_index(structure.quantizer).reconstruct_n(0, structure.nlist))
    assert len(cells) > len(clusters.centroids)
    cluster_of_cell = np.argmax(cells @ clusters.centroids.T, axis=1)
    # There are fewer clusters than are visited when an image is assigned to its cell.
    cell_of_image = np.argmax(embeddings @ cells.T, axis=1)
    for query, result in zip(embeddings, index.search(embeddings, len(embeddings) - 1), strict=True):
        candidates = np.flatnonzero(cluster_of_cell == np.argmax(clusters.centroids @ query))
        cell = candidates[np.argmax(cells[candidates] @ query)]
        assert sorted(result["path"]) == sorted(catalogue.frame["path"].iloc[np.flatnonzero(cell_of_image == cell)])


@pytest.mark.parametrize("kind", ["exact", "lance"])
def test_kinds_without_a_faiss_structure_are_refused(kind: str, embeddings: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"FAISS has no structure of kind {kind}"):
        build_structure(kind, embeddings, cluster_embeddings(embeddings, SIX_CLUSTERS))

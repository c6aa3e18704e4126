"""Neighbors and ranks equal those of sorting all distances."""

import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.neighbors import first_hit_ranks, nearest, neighbors


def test_neighbors_and_ranks_equal_those_of_sorting(catalogue: Catalogue, embeddings: np.ndarray) -> None:
    labels = catalogue.frame["label"].tolist()
    gallery, queries = catalogue.rows("train"), catalogue.rows("test")
    absent_label = labels[queries[0]]
    gallery = gallery[[labels[row] != absent_label for row in gallery]]
    result = neighbors(embeddings[queries], embeddings, gallery, 5)
    ranks = first_hit_ranks(result, labels, queries, gallery)
    for row, rank, neighbor_rows in zip(queries, ranks, result, strict=True):
        expected_rows = gallery[np.argsort(np.linalg.norm(embeddings[gallery] - embeddings[row], axis=1), kind="stable")][:5]
        assert neighbor_rows.tolist() == expected_rows.tolist()
        hits = [number for number, neighbor in enumerate(expected_rows, start=1) if labels[neighbor] == labels[row]]
        expected = np.nan if labels[row] == absent_label else hits[0] if hits else np.inf
        assert rank == expected or (np.isnan(rank) and np.isnan(expected))
    assert nearest(embeddings[queries], embeddings, gallery).tolist() == result[:, 0].tolist()
    assert neighbors(embeddings[queries], embeddings, gallery, 10_000).shape == (len(queries), len(gallery))

"""Neighbors and ranks, against sorting all distances."""

import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.neighbors import first_hit_ranks, nearest, neighbors


def test_neighbors_and_ranks_are_those_of_sorting(catalogue: Catalogue, embeddings: np.ndarray) -> None:
    labels = catalogue.frame["label"].tolist()
    gallery, queries = catalogue.rows("train"), catalogue.rows("test")
    absent = labels[queries[0]]
    gallery = gallery[[labels[row] != absent for row in gallery]]
    found = neighbors(embeddings, queries, gallery, 5)
    ranks = first_hit_ranks(embeddings, labels, queries, gallery, depth=5)
    for row, rank, line in zip(queries, ranks, found, strict=True):
        order = gallery[np.argsort(np.linalg.norm(embeddings[gallery] - embeddings[row], axis=1), kind="stable")][:5]
        assert line.tolist() == order.tolist()
        hits = [place for place, other in enumerate(order, start=1) if labels[other] == labels[row]]
        expected = np.nan if labels[row] == absent else hits[0] if hits else np.inf
        assert rank == expected or (np.isnan(rank) and np.isnan(expected))
    assert nearest(embeddings, queries, gallery).tolist() == found[:, 0].tolist()
    assert neighbors(embeddings, queries, gallery, 10_000).shape == (len(queries), len(gallery))

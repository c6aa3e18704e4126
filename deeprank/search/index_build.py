"""Writing the index of a catalogue's embeddings."""

from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.search.arrays import Vectors
from deeprank.search.churn import Churn, expected_centroid_distance
from deeprank.search.clusters import Clusters
from deeprank.search.faiss_index import Structure, build_structure
from deeprank.search.index import Index
from deeprank.search.index_files import ROW_COLUMNS, STRUCTURE, VECTORS, write_index_files
from deeprank.search.lance_index import LanceIndex
from deeprank.search.search_params import EXACT_SEARCH, SearchParams


def write_index(
    folder: Path,
    bundle: Bundle,
    catalogue: Catalogue,
    embeddings: Vectors,
    clusters: Clusters,
    search_params: SearchParams = EXACT_SEARCH,
    structure: Structure = None,
) -> Index:
    """Write the index of a catalogue's embeddings.

    Args:
        folder: to write to.
        bundle: of the model that embedded the images.
        catalogue: of the images.
        embeddings: (len(catalogue.frame), d) of unit length, of every row of the catalogue's frame.
        clusters: of the embeddings.
        search_params: kind and parameters of the searches.
        structure: of that kind, if it is built already; it is required for kind lance.

    """
    folder.mkdir(parents=True, exist_ok=True)
    lance_index = structure if isinstance(structure, LanceIndex) else None
    if lance_index is None:
        if search_params.kind != "exact":
            faiss.write_index(structure or build_structure(search_params.kind, embeddings, clusters), str(folder / STRUCTURE))
        np.save(folder / VECTORS, embeddings)
    clusters.save(folder)
    rows = catalogue.frame.assign(cluster=clusters.assignments)[ROW_COLUMNS]
    churn = Churn(built_from=len(rows), centroid_distance=expected_centroid_distance(embeddings, clusters))
    facts = {"search_params": search_params.model_dump(), "weights_hash": bundle.weights_hash, "churn": asdict(churn)}
    write_index_files(folder, rows, facts, catalogue, lance_index)
    return Index(folder)

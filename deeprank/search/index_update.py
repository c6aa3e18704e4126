"""Updating an index to another version of its catalogue: images are added and removed, clusters and search parameters stay."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.row_numbers import CatalogueRows
from deeprank.search.arrays import Assignments, Vectors
from deeprank.search.churn import Churn, centroid_distances
from deeprank.search.faiss_index import add_entries, exact_neighbors, remove_entries
from deeprank.search.index import Index
from deeprank.search.index_files import EMBEDDING_ROWS, ROW_COLUMNS, ROWS, STRUCTURE, VECTORS, write_index_files
from deeprank.search.lance_index import LanceIndex


def update_index(index: Index, folder: Path, catalogue: Catalogue, embed: Callable[[CatalogueRows], Vectors]) -> Index:
    """Write an updated copy of an index: images that it lacks are added, images that the catalogue lacks are removed.

    `churn` of the result says how far the images are from those that its clusters were computed from.

    Args:
        index: to update; its folder is not changed.
        folder: to write to; not the index's own.
        catalogue: of the images to be indexed.
        embed: returns the embeddings (m, d) of rows of the catalogue's frame by the index's model; where they are searched in a
            Lance table, it has written them there.

    Raises:
        ModelError: the table has no embedding of an image, because code or packages that embed have changed.

    """
    frame = catalogue.frame
    is_indexed = frame["id"].isin(index.ids).to_numpy()
    new_rows = CatalogueRows(np.flatnonzero(~is_indexed))
    is_removed = ~index.ids.isin(frame["id"])
    new_vectors = _embed_new(index, new_rows, embed)
    new_assignments = _assign(new_vectors, index.clusters.centroids)
    rows = _updated_rows(index, frame, is_indexed, new_assignments)
    folder.mkdir(parents=True, exist_ok=True)
    lance_index = None
    if index.lance_index is not None:
        lance_index = LanceIndex.build(index.lance_index.uri, frame["id"].tolist(), index.clusters.centroids)
        rows = rows.reset_index(drop=True)
    elif index.search_params.kind == "exact":
        # Entries are positions again, so that a search can compare with the array as it is.
        np.save(folder / VECTORS, np.concatenate([index.vectors, new_vectors])[rows.index.to_numpy()])
        rows = rows.reset_index(drop=True)
    else:
        structure = faiss.read_index(str(index.folder / STRUCTURE))
        remove_entries(structure, index.entries[is_removed])
        add_entries(structure, new_vectors, len(index.vectors))
        faiss.write_index(structure, str(folder / STRUCTURE))
        np.save(folder / VECTORS, np.concatenate([index.vectors, new_vectors]))
    for name in index.manifest["checksums"].keys() - {ROWS, VECTORS, STRUCTURE, EMBEDDING_ROWS}:
        shutil.copy(index.folder / name, folder / name)
    churn = _updated_churn(index.churn, centroid_distances(new_vectors, index.clusters.centroids, new_assignments), int(is_removed.sum()))
    facts = {name: index.manifest[name] for name in ("search_params", "weights_hash")} | {"churn": asdict(churn)}
    write_index_files(folder, rows, facts, catalogue, lance_index)
    return Index(folder)


def _embed_new(index: Index, new_rows: CatalogueRows, embed: Callable[[CatalogueRows], Vectors]) -> Vectors:
    if not len(new_rows):
        return np.empty((0, index.vectors.shape[1]), np.float32)
    return np.ascontiguousarray(embed(new_rows), dtype=np.float32)


def _assign(vectors: Vectors, centroids: Vectors) -> Assignments:
    """Return the cluster with the nearest centroid for each vector, (n,)."""
    return exact_neighbors(centroids, vectors, 1)[:, 0] if len(vectors) else np.empty(0, dtype=np.int64)


def _updated_rows(index: Index, frame: pd.DataFrame, is_indexed: npt.NDArray[np.bool_], new_assignments: Assignments) -> pd.DataFrame:
    """Return the rows of the updated index, their entries as index: new entries follow the existing ones.

    An image that is indexed already keeps its entry and cluster; its path, label and split are those of the catalogue.
    """
    indexed = index.rows[["cluster"]].reset_index(names="entry").set_index(index.ids).loc[frame["id"][is_indexed]]
    entries, assignments = np.empty(len(frame), dtype=np.int64), np.empty(len(frame), dtype=np.int64)
    entries[is_indexed], assignments[is_indexed] = indexed["entry"], indexed["cluster"]
    entries[~is_indexed] = len(index.vectors) + np.arange(len(new_assignments))
    assignments[~is_indexed] = new_assignments
    return frame.assign(cluster=assignments)[ROW_COLUMNS].set_index(pd.Index(entries))


def _updated_churn(churn: Churn, new_distances: npt.NDArray[np.float64], removed: int) -> Churn:
    added = churn.added + len(new_distances)
    total_distance = new_distances.sum() + churn.added_centroid_distance * churn.added
    mean_distance = float(total_distance / added) if len(new_distances) else churn.added_centroid_distance
    return Churn(churn.built_from, added, churn.removed + removed, churn.centroid_distance, mean_distance)

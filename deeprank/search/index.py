"""The index: the searchable embeddings of a catalogue by one model, in a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError, ModelError
from deeprank.models.bundle import Bundle
from deeprank.row_numbers import IndexEntries, IndexPositions
from deeprank.search.arrays import Distances, Vectors
from deeprank.search.churn import Churn
from deeprank.search.clusters import Clusters
from deeprank.search.faiss_index import Structure, exact_neighbors, rerank_candidates, search_structure
from deeprank.search.index_files import EMBEDDING_ROWS, ROWS, STRUCTURE, VECTORS, read_index_manifest
from deeprank.search.label_filter import select_label
from deeprank.search.lance_index import LanceIndex
from deeprank.search.search_params import SearchParams

# A filter that leaves at most this many images is searched exactly: a structure would visit mostly images that are not allowed.
MAX_EXACT_FILTERED = 20_000
# Vectors compared at a time: those of a mapped file or of a table are not all read into memory.
COMPARE_BLOCK = 16_384
# The squared length of a vector of unit length in float32 differs from 1 by less than this.
MAX_ROUNDING = 1e-5


@dataclass(frozen=True)
class Index:
    """An index on disk, opened for reading and searching; its files are read when they are first needed.

    The entry of an image is the position of its vector in vectors.npy or in the Lance table; `rows.index` holds the entries that
    have not been removed. The position of an image is its row in `rows`.

    Attributes:
        folder: that holds index.json.

    """

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The parsed index.json, after every file was checked against its checksum.

        Raises:
            ModelError: a file is missing or damaged, or the index has another format.

        """
        return read_index_manifest(self.folder)

    @cached_property
    def search_params(self) -> SearchParams:
        """Kind and parameters of its searches."""
        return SearchParams.model_validate(self.manifest["search_params"])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The indexed images: columns path, id, label, split, image_row and cluster; their entries as index."""
        _ = self.manifest
        return pd.read_parquet(self.folder / ROWS)

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters that the index was built with."""
        _ = self.manifest
        return Clusters.load(self.folder)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue whose images are indexed."""
        return Catalogue(self.manifest["catalogue"]["uri"], self.manifest["catalogue"]["version"])

    @property
    def churn(self) -> Churn:
        """What was added and removed since the index was built."""
        return Churn(**self.manifest["churn"])

    @cached_property
    def lance_index(self) -> LanceIndex | None:
        """The Lance table that holds the vectors and lists; None where they are in files of the folder."""
        table = self.manifest.get("table")
        return LanceIndex(table["uri"], table["version"], np.load(self.folder / EMBEDDING_ROWS)) if table else None

    @cached_property
    def vectors(self) -> Vectors | LanceIndex:
        """The vector of each entry (m, d), removed ones included; read only where they are accessed."""
        if self.lance_index is not None:
            return self.lance_index
        # A mapped file: processes that serve the same release share its pages.
        vectors: Vectors = np.load(self.folder / VECTORS, mmap_mode="r")
        return vectors

    @cached_property
    def _structure(self) -> Structure:
        return self.lance_index if self.lance_index is not None else faiss.read_index(str(self.folder / STRUCTURE))

    @cached_property
    def entries(self) -> IndexEntries:
        """The entry at each position."""
        return IndexEntries(self.rows.index.to_numpy())

    @cached_property
    def ids(self) -> pd.Index:
        """The image id at each position."""
        return pd.Index(self.rows["id"])

    def embeddings(self, positions: npt.NDArray[np.int64]) -> Vectors:
        """Return the embeddings of images by their positions, (len(positions), d)."""
        return self.vectors[self.entries[positions]]

    def positions_of(self, ids: Sequence[str]) -> IndexPositions:
        """Return the positions of images by their ids.

        Raises:
            DataError: one of them is not indexed.

        """
        positions: npt.NDArray[np.int64] = self.ids.get_indexer(list(ids))
        if (positions < 0).any():
            raise DataError(f"no image {ids[int(np.argmin(positions))]} in this index")
        return IndexPositions(positions)

    def check_model(self, bundle: Bundle) -> None:
        """Check that a bundle holds the model whose embeddings are indexed.

        Raises:
            ModelError: it holds another model, or a file of the index is damaged.

        """
        if self.manifest["weights_hash"] != bundle.weights_hash:
            raise ModelError(f"{self.folder} was built with another model than {bundle.folder}: build the index again with this model")

    def search(self, queries: Vectors, k: int, *, label_prefix: str = "", max_distance: float | None = None) -> list[pd.DataFrame]:
        """Search for the nearest images of each query.

        Args:
            queries: (q, d) as `Embedder.as_queries` returns them.
            k: neighbors per query.
            label_prefix: only images of this label, or of labels below it, as Fruit/Apple; empty: all.
            max_distance: only images up to this distance, 0 to 2; None: any.

        Returns:
            For each query a table of at most k images, nearest first: the columns of `rows` and distance.

        Raises:
            DataError: no image has the label or one below it.

        """
        results = self.search_positions(queries, k, label_prefix=label_prefix, max_distance=max_distance)
        return [self.rows.iloc[positions].assign(distance=distances).reset_index(drop=True) for positions, distances in results]

    def search_positions(
        self, queries: Vectors, k: int, *, label_prefix: str = "", max_distance: float | None = None
    ) -> list[tuple[IndexPositions, Distances]]:
        """Return for each query the positions of its nearest images and their distances; arguments as of `search`."""
        results = []
        for entries, distances in zip(*self.search_entries(queries, k, label_prefix), strict=True):
            is_result = (entries >= 0) & (distances <= (max_distance if max_distance is not None else np.inf))
            results.append((IndexPositions(self.rows.index.get_indexer(entries[is_result])), distances[is_result]))
        return results

    def search_entries(self, queries: Vectors, k: int, label_prefix: str = "") -> tuple[IndexEntries, Distances]:
        """Return the nearest entries of each query and their distances, nearest first; arguments as of `search`.

        Returns:
            Both (q, k), or fewer columns where fewer images are indexed; -1 and infinity where fewer neighbors were found.

        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        entries, distances = self._nearest_entries(queries, k, label_prefix)
        return entries, _query_distances(queries, distances)

    def _nearest_entries(self, queries: Vectors, k: int, label_prefix: str) -> tuple[IndexEntries, Distances]:
        """Return the nearest entries of each query and their Euclidean distances, as of `search_entries`."""
        candidates = self._entries_below(label_prefix)
        k = min(k, len(candidates))
        if k == 0:
            return IndexEntries(np.empty((len(queries), 0), dtype=np.int64)), np.empty((len(queries), 0))
        if self.search_params.kind == "exact" or len(candidates) <= (MAX_EXACT_FILTERED if label_prefix else k):
            return self._search_exactly(queries, candidates, k)
        allowed = None
        # Removed entries are no longer in inverted lists, but still in a graph.
        if label_prefix or (self.search_params.kind == "hnsw" and len(candidates) < len(self.vectors)):
            allowed = np.zeros(len(self.vectors), dtype=bool)
            allowed[candidates] = True
        entries, distances = search_structure(self._structure, self.search_params, self.vectors, queries, k, allowed)
        # The visited part of the structure may hold fewer than k allowed images.
        is_short = entries[:, -1] < 0
        if label_prefix and is_short.any():
            entries[is_short], distances[is_short] = self._compare_in_blocks(queries[is_short], candidates, k)
        return entries, distances

    def _entries_below(self, label_prefix: str) -> IndexEntries:
        """Return the entries of images of a label or of labels below it; all where it is empty."""
        if not label_prefix:
            return self.entries
        return IndexEntries(self.entries[select_label(self.rows["label"], label_prefix)])

    def _search_exactly(self, queries: Vectors, candidates: IndexEntries, k: int) -> tuple[IndexEntries, Distances]:
        vectors = self.vectors
        # Only in an index of kind exact are all entries in the order of vectors.npy; after an update of another kind they are not.
        is_whole_array = self.search_params.kind == "exact" and len(candidates) == len(vectors)
        if isinstance(vectors, LanceIndex) or not is_whole_array:
            return self._compare_in_blocks(queries, candidates, k)
        positions, distances = rerank_candidates(vectors, queries, exact_neighbors(vectors, queries, k), k)
        return IndexEntries(candidates[positions]), distances

    def _compare_in_blocks(self, queries: Vectors, candidates: IndexEntries, k: int) -> tuple[IndexEntries, Distances]:
        """Compare each query with all of some entries; returns (q, k) entries and distances, nearest first."""
        blocks = []
        for start in range(0, len(candidates), COMPARE_BLOCK):
            block = candidates[start : start + COMPARE_BLOCK]
            vectors, block_k = self.vectors[block], min(k, len(block))
            positions, distances = rerank_candidates(vectors, queries, exact_neighbors(vectors, queries, block_k), block_k)
            blocks.append((block[positions], distances))
        entries, distances = (np.concatenate(arrays, axis=1) for arrays in zip(*blocks, strict=True))
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return IndexEntries(np.take_along_axis(entries, order, axis=1)), np.take_along_axis(distances, order, axis=1)


def _query_distances(queries: Vectors, distances: Distances) -> Distances:
    """Return the distances (q, k) of queries (q, d) to images, by their Euclidean distances.

    The squared distance is 2 - 2 x similarity. For a query of unit length both are the same.
    """
    excess = np.square(queries, dtype=np.float64).sum(axis=1) - 1
    # Rounding: without it, the distance of an image to itself would be 3e-4.
    excess[np.abs(excess) < MAX_ROUNDING] = 0
    return np.sqrt(np.maximum(np.square(distances) - excess[:, None], 0))

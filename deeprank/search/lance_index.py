"""Search in collections larger than memory: inverted lists that Lance keeps beside the embeddings, on disk or in an object store."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deeprank.checksums import hash_file
from deeprank.data.store import open_table
from deeprank.errors import ModelError, StoreError
from deeprank.models.embedding_table import find_embedding_rows, read_vectors, table_embedding_dim
from deeprank.row_numbers import EmbeddingRows, IndexEntries
from deeprank.search.arrays import Distances, Vectors

# Where some results are not allowed, the next request asks for this many times as many.
OVERFETCH_FACTOR = 4


class LanceIndex:
    """One version of a Lance table of embeddings with inverted lists, and the rows of it that are indexed.

    It has the interface of an array of vectors (len, shape, [entries]), and reads only the vectors that are accessed.

    Attributes:
        uri, version: of the table, which has the columns id and vector.
        embedding_rows: (n,) the row of each entry.

    """

    def __init__(self, uri: str, version: int, embedding_rows: EmbeddingRows) -> None:
        self.uri, self.version, self.embedding_rows = uri, version, embedding_rows

    @classmethod
    def build(cls, uri: str, ids: Sequence[str], centroids: Vectors) -> "LanceIndex":
        """Assign every vector of a table to the list of its nearest centroid, and tag that version of the table.

        Args:
            uri: of the table, which has an embedding of each of the images.
            ids: (n,) of the images that can be found.
            centroids: (k, d) of unit length.

        Raises:
            ModelError: the table has no embedding of one of the images.

        """
        table = open_table(uri).create_index(
            "vector", "IVF_FLAT", metric="L2", num_partitions=len(centroids), ivf_centroids=np.ascontiguousarray(centroids), replace=True
        )
        tag = f"index-{table.version}"
        if tag not in table.tags.list():
            table.tags.create(tag, table.version)
        embedding_rows = find_embedding_rows(table, ids)
        if (embedding_rows < 0).any():
            raise ModelError(
                f"{uri} has no embedding of image {ids[int(np.argmin(embedding_rows))]}: code or packages that embed have changed; "
                "build the index again"
            )
        return cls(uri, table.version, embedding_rows)

    @cached_property
    def _table(self) -> Any:
        try:
            return open_table(self.uri, self.version)
        except StoreError as error:
            raise ModelError(f"version {self.version} of the embeddings {self.uri} cannot be opened: {error}") from None

    @cached_property
    def _entry_of_row(self) -> IndexEntries:
        entries = np.full(self._table.count_rows(), -1, dtype=np.int64)
        entries[self.embedding_rows] = np.arange(len(self.embedding_rows))
        return IndexEntries(entries)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Number of entries, embedding_dim."""
        return len(self.embedding_rows), table_embedding_dim(self._table)

    def __len__(self) -> int:
        return len(self.embedding_rows)

    def __getitem__(self, entries: npt.NDArray[np.int64]) -> Vectors:
        return read_vectors(self._table, self.embedding_rows[entries])

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of each file that this version is read from, by its path below the table; empty on an object store."""
        root = Path(self.uri)
        if not root.is_dir():
            return {}
        index_folders = [root / "_indices" / str(segment.uuid) for index in self._table.describe_indices() for segment in index.segments]
        files = [root / "data" / file.path for fragment in self._table.get_fragments() for file in fragment.data_files()]
        files += [file for folder in index_folders for file in folder.iterdir()]
        return {str(file.relative_to(root)): hash_file(file) for file in sorted(files)}

    def search(self, queries: Vectors, k: int, nprobe: int, allowed: npt.NDArray[np.bool_] | None = None) -> tuple[IndexEntries, Distances]:
        """Search the lists nearest to each query.

        Args:
            queries: (q, d) of unit length.
            k: neighbors per query.
            nprobe: lists visited.
            allowed: (n,) the entries that may be returned; None: all.

        Returns:
            The nearest entries of each query and their Euclidean distances, both (q, k), nearest first; -1 and infinity where
            there are fewer neighbors.

        """
        entries, distances = np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), np.inf)
        open_queries, limit = np.arange(len(queries)), k
        while len(open_queries):
            request = {"column": "vector", "q": queries[open_queries], "k": limit, "minimum_nprobes": nprobe, "maximum_nprobes": nprobe}
            results = self._table.to_table(nearest=request, columns=["_rowoffset", "_distance"]).to_pandas()
            num_results = np.bincount(results["query_index"], minlength=len(open_queries))
            results["entry"] = self._entry_of_row[results["_rowoffset"]]
            is_allowed = results["entry"] >= 0
            if allowed is not None:
                is_allowed &= allowed[results["entry"]]
            results = results[is_allowed]
            results["rank"] = results.groupby("query_index").cumcount()
            results = results[results["rank"] < k]
            cells = open_queries[results["query_index"]], results["rank"].to_numpy()
            entries[cells], distances[cells] = results["entry"], np.sqrt(results["_distance"].to_numpy(dtype=np.float64))
            # Where Lance returned fewer than the limit, the visited lists have no more.
            open_queries = open_queries[(entries[open_queries, -1] < 0) & (num_results == limit)]
            limit *= OVERFETCH_FACTOR
        return IndexEntries(entries), distances

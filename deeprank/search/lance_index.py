"""Searching larger than memory: inverted lists that Lance keeps beside the embeddings, on a disk or in an object store."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lance
import numpy as np
import numpy.typing as npt

from deeprank.checksums import hash_file
from deeprank.errors import ModelError
from deeprank.models.embedding_table import dimensions_of, offsets_of, vectors_at

# So many times as many are asked for where some of those found are not to be shown.
MORE = 4


class LanceIndex:
    """One version of a Lance table of embeddings, and which of its rows are indexed: entry i is row `offsets[i]`.

    It has what an array of vectors has (len, shape, [entries]), and reads only what it is asked for.

    Attributes:
        uri, version: of the table, with columns id and vector.
        offsets: (n,) of the rows.

    """

    def __init__(self, uri: str, version: int, offsets: npt.NDArray[np.int64]) -> None:
        self.uri, self.version, self.offsets = uri, version, offsets

    @classmethod
    def build(cls, uri: str, ids: Sequence[str], centroids: npt.NDArray[np.float32]) -> "LanceIndex":
        """Put every vector of a table into the list of its nearest centroid, and pin that version of it.

        Args:
            uri: of the table, which holds each of the images.
            ids: (n,) images that can be found.
            centroids: (k, d) of unit length.

        Raises:
            ModelError: the table lacks one of the images.

        """
        table = lance.dataset(uri).create_index(
            "vector", "IVF_FLAT", metric="L2", num_partitions=len(centroids), ivf_centroids=np.ascontiguousarray(centroids), replace=True
        )
        name = f"index-{table.version}"
        if name not in table.tags.list():
            table.tags.create(name, table.version)
        offsets = offsets_of(table, ids)
        if (offsets < 0).any():
            raise ModelError(f"{uri} holds no embedding of image {ids[int(np.argmin(offsets))]}: build the index anew")
        return cls(uri, table.version, offsets)

    @cached_property
    def _table(self) -> Any:
        try:
            return lance.dataset(self.uri, version=self.version)
        except (ValueError, OSError) as error:
            raise ModelError(f"version {self.version} of the embeddings {self.uri} cannot be opened: {error}") from None

    @cached_property
    def _entry_of(self) -> npt.NDArray[np.int64]:
        entries = np.full(self._table.count_rows(), -1, dtype=np.int64)
        entries[self.offsets] = np.arange(len(self.offsets))
        return entries

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Images, dimensions."""
        return len(self.offsets), dimensions_of(self._table)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return vectors_at(self._table, self.offsets[entries])

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of each file that this version is read from, by its path below the table; none in an object store."""
        root = Path(self.uri)
        if not root.is_dir():
            return {}
        lists = [root / "_indices" / str(segment.uuid) for index in self._table.describe_indices() for segment in index.segments]
        files = [root / "data" / file.path for fragment in self._table.get_fragments() for file in fragment.data_files()]
        files += [file for folder in lists for file in folder.iterdir()]
        return {str(file.relative_to(root)): hash_file(file) for file in sorted(files)}

    def nearest(
        self, queries: npt.NDArray[np.float32], k: int, nprobe: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return each query's k nearest entries and their Euclidean distances, both (q, k), nearest first; -1 and inf for none.

        Args:
            queries: (q, d).
            k: neighbors wanted.
            nprobe: lists looked into.
            allowed: (n,) which entries may be found; None: all.

        """
        entries, distances = np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), np.inf)
        left, wanted = np.arange(len(queries)), k
        while len(left):
            question = {"column": "vector", "q": queries[left], "k": wanted, "minimum_nprobes": nprobe, "maximum_nprobes": nprobe}
            found = self._table.to_table(nearest=question, columns=["_rowoffset", "_distance"]).to_pandas()
            asked = np.bincount(found["query_index"], minlength=len(left))
            found["entry"] = self._entry_of[found["_rowoffset"]]
            shown = found["entry"] >= 0
            if allowed is not None:
                shown &= allowed[found["entry"]]
            found = found[shown]
            found["rank"] = found.groupby("query_index").cumcount()
            found = found[found["rank"] < k]
            place = left[found["query_index"]], found["rank"].to_numpy()
            entries[place], distances[place] = found["entry"], np.sqrt(found["_distance"].to_numpy(dtype=np.float64))
            # Where fewer came than were asked for, there are no more in these lists.
            left = left[(entries[left, -1] < 0) & (asked == wanted)]
            wanted *= MORE
        return entries, distances

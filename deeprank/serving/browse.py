"""What there is to look at in an index besides neighbors: its classes, some samples, its clusters."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from deeprank.errors import DataError
from deeprank.search.index import Index

SAID = ["id", "path", "label", "cluster", "split"]
SHOWN = 4
# Of a cluster so many images are looked at for the ones that stand for it.
LOOKED_AT = 64


@dataclass(frozen=True)
class Cluster:
    """One cluster: how many images, the label of most of them and its share, and those nearest to its center."""

    cluster: int
    size: int
    label: str
    share: float
    representatives: list[str]


class Browser:
    """Tables of an index for people to walk through; each is made when it is first asked for."""

    def __init__(self, index: Index) -> None:
        self._index = index

    @cached_property
    def classes(self) -> list[tuple[str, int, bool]]:
        """Every label and every folder above one: its path, how many images it has, and whether it is a class itself."""
        leaves = Counter(self._index.rows["label"].tolist())
        counts: Counter[str] = Counter()
        for label, count in leaves.items():
            parts = label.split("/")
            for depth in range(1, len(parts) + 1):
                counts["/".join(parts[:depth])] += count
        return [(label, counts[label], label in leaves) for label in sorted(counts)]

    def images(self, places: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return the columns SAID of images at places in the index's rows, as plain values."""
        said: list[dict[str, Any]] = self._said.take(pa.array(places)).to_pylist()
        return said

    @cached_property
    def samples(self) -> npt.NDArray[np.int64]:
        """The place of one image of each class, in the order of the classes, one of its test split where there is one."""
        rows = self._index.rows.reset_index(drop=True)
        first = rows.assign(known=rows["split"] != "test").sort_values(["label", "known"], kind="stable")
        return first.drop_duplicates("label").index.to_numpy()

    @cached_property
    def clusters(self) -> list[Cluster]:
        """Every cluster that has images, the largest first."""
        found = []
        for number, places in self._places.items():
            labels = self._labels[places]
            names, counts = np.unique(labels, return_counts=True)
            most = int(counts.argmax())
            share = float(counts[most] / len(places))
            found.append(Cluster(number, len(places), str(names[most]), share, self._ids[self._representatives(places)].tolist()))
        return sorted(found, key=lambda cluster: (-cluster.size, cluster.cluster))

    def members(self, cluster: int) -> npt.NDArray[np.int64]:
        """Return the places of a cluster's images.

        Raises:
            DataError: there is no such cluster.

        """
        if cluster not in self._places:
            raise DataError(f"no cluster {cluster} in this index")
        return self._places[cluster]

    @cached_property
    def _said(self) -> pa.RecordBatch:
        # A few rows of it are Python's values in a tenth of the time that pandas takes.
        return pa.RecordBatch.from_pandas(self._index.rows[SAID], preserve_index=False)

    @cached_property
    def _labels(self) -> npt.NDArray[np.object_]:
        return self._index.rows["label"].to_numpy(dtype=object)

    @cached_property
    def _ids(self) -> npt.NDArray[np.object_]:
        return self._index.rows["id"].to_numpy(dtype=object)

    @cached_property
    def _places(self) -> dict[int, npt.NDArray[np.int64]]:
        groups = self._index.rows.reset_index(drop=True).groupby("cluster").indices
        return {int(number): places for number, places in groups.items()}

    def _representatives(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        some = places[:: max(1, len(places) // LOOKED_AT)]
        embeddings = self._index.embeddings(some)
        return some[np.argsort(-(embeddings @ embeddings.mean(axis=0)), kind="stable")[:SHOWN]]

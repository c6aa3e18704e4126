"""Tables of an index for browsing: its classes, sample images, clusters and their members."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from deeprank.errors import DataError
from deeprank.row_numbers import IndexPositions
from deeprank.search.index import Index
from deeprank.search.label_filter import label_levels

IMAGE_COLUMNS = ["id", "path", "label", "cluster", "split"]
NUM_REPRESENTATIVES = 4
# Representatives are chosen among evenly spaced images of the cluster: all of them, or at least this number.
MIN_CANDIDATES = 64


@dataclass(frozen=True)
class ClassCount:
    """Number of images of a label path.

    Attributes:
        label: label path, of a class or of a folder of classes.
        num_images: images of this label and of all labels below it.
        is_class: whether images have exactly this label.

    """

    label: str
    num_images: int
    is_class: bool


@dataclass(frozen=True)
class ClusterSummary:
    """One cluster of an index.

    Attributes:
        cluster: number of the cluster.
        size: number of images.
        majority_label: most frequent label.
        purity: share of the images that have the majority label, 0 to 1.
        representatives: ids of the images nearest to the cluster's mean.

    """

    cluster: int
    size: int
    majority_label: str
    purity: float
    representatives: list[str]


class CatalogueBrowser:
    """Tables of an index for browsing, each computed on first use."""

    def __init__(self, index: Index) -> None:
        self._index = index

    @cached_property
    def classes(self) -> list[ClassCount]:
        """Every label and every folder of labels, sorted by label."""
        class_sizes = Counter(self._index.rows["label"].tolist())
        num_images: Counter[str] = Counter()
        for label, size in class_sizes.items():
            for level in label_levels(label):
                num_images[level] += size
        return [ClassCount(label, num_images[label], label in class_sizes) for label in sorted(num_images)]

    def images(self, positions: IndexPositions) -> list[dict[str, Any]]:
        """Return IMAGE_COLUMNS of images as plain Python values.

        Args:
            positions: (n,) positions in the index's table of images.

        """
        images: list[dict[str, Any]] = self._image_table.take(pa.array(positions)).to_pylist()
        return images

    @cached_property
    def samples(self) -> IndexPositions:
        """Position of one image per class, in the order of the labels; an image of the test split if the class has one."""
        rows = self._index.rows.reset_index(drop=True)
        by_class = rows.assign(not_test=rows["split"] != "test").sort_values(["label", "not_test"], kind="stable")
        return IndexPositions(by_class.drop_duplicates("label").index.to_numpy())

    @cached_property
    def clusters(self) -> list[ClusterSummary]:
        """Every cluster that has images, largest first."""
        summaries = []
        for cluster, positions in self._cluster_positions.items():
            labels, counts = np.unique(self._labels[positions], return_counts=True)
            majority = int(counts.argmax())
            purity = float(counts[majority] / len(positions))
            representatives = self._ids[self._representatives(positions)].tolist()
            summaries.append(ClusterSummary(cluster, len(positions), str(labels[majority]), purity, representatives))
        return sorted(summaries, key=lambda summary: (-summary.size, summary.cluster))

    def members(self, cluster: int) -> IndexPositions:
        """Return the positions of a cluster's images.

        Raises:
            DataError: the index has no such cluster.

        """
        if cluster not in self._cluster_positions:
            raise DataError(f"no cluster {cluster} in this index")
        return self._cluster_positions[cluster]

    @cached_property
    def _image_table(self) -> pa.RecordBatch:
        # Arrow converts a few rows to Python values ten times as fast as pandas.
        return pa.RecordBatch.from_pandas(self._index.rows[IMAGE_COLUMNS], preserve_index=False)

    @cached_property
    def _labels(self) -> npt.NDArray[np.object_]:
        return self._index.rows["label"].to_numpy(dtype=object)

    @cached_property
    def _ids(self) -> npt.NDArray[np.object_]:
        return self._index.rows["id"].to_numpy(dtype=object)

    @cached_property
    def _cluster_positions(self) -> dict[int, IndexPositions]:
        groups = self._index.rows.reset_index(drop=True).groupby("cluster").indices
        return {int(cluster): IndexPositions(positions) for cluster, positions in groups.items()}

    def _representatives(self, positions: IndexPositions) -> IndexPositions:
        candidates = IndexPositions(positions[:: max(1, len(positions) // MIN_CANDIDATES)])
        embeddings = self._index.embeddings(candidates)
        nearest = np.argsort(-(embeddings @ embeddings.mean(axis=0)), kind="stable")[:NUM_REPRESENTATIVES]
        return IndexPositions(candidates[nearest])

"""Graded relevance of two images, from the paths of their class folders."""

import numpy as np
import numpy.typing as npt
from pydantic import Field

from deeprank.settings import Settings


class RelevanceWeights(Settings):
    """Relevance of images that share the leaf folder, its parent, or only the top folder; else 0."""

    leaf: float = Field(1.0, ge=0)
    parent: float = Field(0.5, ge=0)
    top: float = Field(0.25, ge=0)


def encode_hierarchy(labels: list[str]) -> npt.NDArray[np.int64]:
    """Return (n, depth) class codes, coarsest first: column d tells apart what differs in the first d + 1 folders.

    A label less deep than the deepest one counts as its own only child, so that the last column but one is the coarse
    class at every depth (Vegetables/Garlic beside Fruit/Apple/Golden-Delicious is a coarse class itself).
    """
    place = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    parts = [label.split("/") for label in place]
    depth = max((len(part) for part in parts), default=1)
    columns = [np.unique(["/".join(part[: d + 1]) for part in parts], return_inverse=True)[1] for d in range(depth)]
    return np.stack(columns, axis=1).astype(np.int64)[[place[label] for label in labels]]


def coarse_labels(labels: list[str]) -> list[str]:
    """Return each label cut to one folder less than the deepest label has; unchanged where all have one folder."""
    depth = max(label.count("/") + 1 for label in labels)
    return ["/".join(label.split("/")[: max(depth - 1, 1)]) for label in labels]


def grades(depth: int, weights: RelevanceWeights) -> npt.NDArray[np.float64]:
    """Return (depth + 1,) the relevance of two images that share 0, 1, … depth folders.

    Source: the relevance of Wang et al. 2014 was never released; here it is the share of the folder path.
    """
    table = np.full(depth + 1, weights.top)
    table[max(depth - 1, 0)] = weights.parent
    table[depth] = weights.leaf
    table[0] = 0
    return table


def relevance(
    codes: npt.NDArray[np.int64], i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], weights: RelevanceWeights
) -> npt.NDArray[np.float32]:
    """Return the relevance r(i, j) of pairs of rows of `codes` (see `levels`), elementwise."""
    return grades(codes.shape[1], weights).astype(np.float32)[(codes[i] == codes[j]).sum(axis=1)]


def relevance_matrix(codes: npt.NDArray[np.int64], weights: RelevanceWeights) -> npt.NDArray[np.float32]:
    """Return the relevance (n, n) of every two rows of `codes` (see `levels`)."""
    # Level after level: all pairs of 10,000 classes at once would take 7 GB.
    shared = np.zeros((len(codes), len(codes)), dtype=np.int8)
    for level in codes.T:
        shared += level[:, None] == level
    table = grades(codes.shape[1], weights).astype(np.float32)
    return np.stack([table[row] for row in shared])

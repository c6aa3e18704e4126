"""Graded relevance of two images, from the paths of their class folders."""

import numpy as np
import numpy.typing as npt
from pydantic import Field

from deeprank.settings import Settings


class RelevanceWeights(Settings):
    """Relevance of two images by the folders that they share; images without a common top folder have relevance 0.

    Attributes:
        leaf: relevance of images in the same leaf folder.
        parent: relevance of images that share the parent of the leaf folder, but not the leaf folder.
        top: relevance of images that share the top folder, but not the parent of the leaf folder.

    """

    leaf: float = Field(1.0, ge=0)
    parent: float = Field(0.5, ge=0)
    top: float = Field(0.25, ge=0)


def encode_hierarchy(labels: list[str]) -> npt.NDArray[np.int64]:
    """Return class codes (n, depth), coarsest first: images with equal codes in column d share their first d + 1 folders.

    A label with fewer folders than the deepest one counts as its own only subfolder. The last column but one is therefore the coarse
    class at every depth: Vegetables/Garlic beside Fruit/Apple/Golden-Delicious is a coarse class itself.
    """
    index = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    paths = [label.split("/") for label in index]
    depth = max((len(path) for path in paths), default=1)
    columns = [np.unique(["/".join(path[: d + 1]) for path in paths], return_inverse=True)[1] for d in range(depth)]
    return np.stack(columns, axis=1).astype(np.int64)[[index[label] for label in labels]]


def coarse_labels(labels: list[str]) -> list[str]:
    """Return each label cut to one folder less than the deepest label has; unchanged where all labels have one folder."""
    depth = max(label.count("/") + 1 for label in labels)
    return ["/".join(label.split("/")[: max(depth - 1, 1)]) for label in labels]


def relevance_by_depth(depth: int, weights: RelevanceWeights) -> npt.NDArray[np.float64]:
    """Return the relevance (depth + 1,) of two images that share 0, 1, … depth folders.

    Source: the relevance of Wang et al. 2014 was not published; here the shared part of the folder path stands for it.
    """
    table = np.full(depth + 1, weights.top)
    table[max(depth - 1, 0)] = weights.parent
    table[depth] = weights.leaf
    table[0] = 0
    return table


def relevance(
    codes: npt.NDArray[np.int64], i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], weights: RelevanceWeights
) -> npt.NDArray[np.float32]:
    """Return the relevance r(i, j) of pairs of images, elementwise.

    Args:
        codes: (n, depth) class codes (see `encode_hierarchy`).
        i: (m,) rows of `codes`.
        j: (m,) rows of `codes`.
        weights: relevance by shared folders.

    """
    return relevance_by_depth(codes.shape[1], weights).astype(np.float32)[(codes[i] == codes[j]).sum(axis=1)]

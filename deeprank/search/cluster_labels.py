"""Names of clusters and sections: the most frequent label, and the deepest folder that most of the labels share."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from deeprank.search.arrays import Assignments


def majority_label(labels: Sequence[str], groups: Assignments) -> pd.DataFrame:
    """Return the most frequent label of each group; of equally frequent ones the first in order of the alphabet.

    Args:
        labels: (n,) of the images.
        groups: (n,) group of each image, 0 … m - 1, none of them empty.

    Returns:
        Columns label and share (of the group's images that have it), a row for each group.

    """
    counts = pd.DataFrame({"group": groups, "label": np.asarray(labels, dtype=object)}).value_counts().rename("count").reset_index()
    first = counts.sort_values(["group", "count", "label"], ascending=[True, False, True]).drop_duplicates("group")
    return pd.DataFrame({"label": first["label"].to_numpy(), "share": first["count"].to_numpy() / np.bincount(groups)})


def majority_folder(labels: Sequence[str], groups: Assignments) -> pd.DataFrame:
    """Return the deepest folder with more than half of each group's images, else the group's most frequent top folder.

    Args:
        labels: (n,) paths of folders, as Fruit/Apple/Gala.
        groups: (n,) group of each image, 0 … m - 1, none of them empty.

    Returns:
        Columns label (path of the folder) and share (of the group's images in it), a row for each group.

    """
    folders = pd.Series(labels, dtype=object).str.split("/")
    result = majority_label(folders.str[0].tolist(), groups)
    for depth in range(2, int(folders.str.len().max()) + 1):
        deeper = majority_label(folders.str[:depth].str.join("/").tolist(), groups)
        reaches_depth = folders.str.len().groupby(groups).max().to_numpy() >= depth
        is_better = reaches_depth & (deeper["share"] > 0.5).to_numpy()
        result[is_better] = deeper[is_better]
    return result

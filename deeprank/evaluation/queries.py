"""The images of the test split that are queries."""

from hashlib import sha256

import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.row_numbers import CatalogueRows

# More would take hours against a gallery of millions, and the interval of a recall is then below one point already.
MAX_QUERIES = 10_000


def evaluation_queries(catalogue: Catalogue, limit: int = MAX_QUERIES) -> CatalogueRows:
    """Return the rows of the test split, ascending; of more than `limit` images a sample with the same share of each class.

    The sample depends on the images alone, so that two models are evaluated on the same queries.
    """
    rows = catalogue.rows("test")
    if len(rows) <= limit:
        return rows
    test = catalogue.frame.iloc[rows].reset_index(drop=True).sort_values("id")
    by_label = test.groupby("label")["id"]
    # A number between 0 and 1 for each class, so that of many small classes, too, the share is sampled.
    offset = test["label"].map({label: int(sha256(label.encode()).hexdigest()[:8], 16) / 2**32 for label in test["label"].unique()})
    position = (by_label.cumcount() + offset) / by_label.transform("size")
    return CatalogueRows(np.sort(rows[position.sort_values(kind="stable").index[:limit]]))

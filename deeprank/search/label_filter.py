"""The filter of a search by label."""

import unicodedata

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.errors import DataError
from deeprank.nearest_names import nearest_names

# Labels that a message shows where no label is similar.
MAX_KNOWN_LABELS = 5


def select_label(labels: pd.Series, label_prefix: str) -> npt.NDArray[np.bool_]:
    """Return which labels are a label or below it, e.g. Fruit/Apple; its Unicode form and slashes at its ends do not matter.

    Raises:
        DataError: none is; the message has the nearest labels.

    """
    prefix = unicodedata.normalize("NFC", label_prefix).strip("/")
    selected: npt.NDArray[np.bool_] = ((labels == prefix) | labels.str.startswith(f"{prefix}/" if prefix else "")).to_numpy()
    if not selected.any():
        known = sorted({level for label in labels.unique() for level in label_levels(label)})
        nearest = nearest_names(prefix, known)
        shown = f"nearest: {', '.join(nearest)}" if nearest else f"known: {', '.join(known[:MAX_KNOWN_LABELS])}"
        more = "" if nearest or len(known) <= MAX_KNOWN_LABELS else f" and {len(known) - MAX_KNOWN_LABELS:,} more"
        raise DataError(f"no image has the label {label_prefix} or one below it; {shown}{more}")
    return selected


def label_levels(label: str) -> list[str]:
    """Return a label and the folders that it is in, shortest first: Fruit, Fruit/Apple."""
    parts = label.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]

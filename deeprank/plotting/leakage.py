"""Figures of the leakage check."""

import pandas as pd
from matplotlib.figure import Figure

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.style import NEUTRAL_COLOR, WRONG_COLOR, draw_image_rows, escape_mathtext, register_figure

PAIRS_PER_ROW = 2
MAX_PATH_LENGTH = 26


@register_figure("leakage", "Images of val or test, each beside the image of an earlier split that it is a copy of.")
def leak_pairs(catalogue: Catalogue, leaks: pd.DataFrame, count: int = 12) -> Figure:
    """Draw the most similar pairs of copies, two pairs per row.

    Args:
        catalogue: that was checked.
        leaks: as of `find_leaks`, most similar first.
        count: number of pairs drawn at most.

    """
    # A file with the same bytes as another has no row of its own: the row of the other holds the image.
    id_of_path = dict(zip(catalogue.state["path"], catalogue.state["id"], strict=True))
    row_of_id = {key: row for row, key in enumerate(catalogue.frame["id"])}

    def cell(path: str, split: str, similarity: float) -> tuple[int, str, str]:
        # The end of a path names the image.
        end = escape_mathtext(path if len(path) <= MAX_PATH_LENGTH else f"…{path[1 - MAX_PATH_LENGTH :]}")
        return row_of_id[id_of_path[path]], f"{split} {similarity:.3f}\n{end}", NEUTRAL_COLOR if split == "train" else WRONG_COLOR

    cells = []
    for pair in leaks.head(count).itertuples():
        cells += [cell(pair.path, pair.split, pair.similarity), cell(pair.other_path, pair.other_split, pair.similarity)]
    if not cells:
        return Figure()
    columns = 2 * PAIRS_PER_ROW
    title = f"Copies across splits: {len(leaks):,} pairs (similarity)"
    return draw_image_rows(catalogue, [cells[i : i + columns] for i in range(0, len(cells), columns)], title)

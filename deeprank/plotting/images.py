"""Figures of a catalogue's images and of triplets."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.style import CORRECT_COLOR, NEUTRAL_COLOR, WRONG_COLOR, draw_image_rows, register_figure, short_label

GRID_COLUMNS = 8


@register_figure("images", "A random sample of the catalogue's images with their classes.")
def image_grid(catalogue: Catalogue, count: int = 32, seed: int = 0) -> Figure:
    """Draw random images with their classes.

    Args:
        catalogue: that holds the images.
        count: number of images drawn at most.
        seed: of the random choice.

    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(catalogue.frame))[:count])
    cells = [(int(row), short_label(catalogue.frame["label"][row]), NEUTRAL_COLOR) for row in rows]
    title = f"{len(cells):,} of {len(catalogue.frame):,} images"
    return draw_image_rows(catalogue, [cells[i : i + GRID_COLUMNS] for i in range(0, len(cells), GRID_COLUMNS)], title)


@register_figure(
    "triplet_grid", "A random sample of the triplets. The query should be nearer to the positive (green) than to the negative (red)."
)
def triplet_grid(catalogue: Catalogue, triplets: pd.DataFrame, count: int = 8, seed: int = 0) -> Figure:
    """Draw random triplets, two per row: query, positive, negative.

    Args:
        catalogue: that holds the images.
        triplets: columns query, positive, negative (rows of the catalogue's frame), relevance_positive, relevance_negative.
        count: number of triplets drawn at most.
        seed: of the random choice.

    """
    sample = triplets.sample(min(count, len(triplets)), random_state=seed)
    labels = catalogue.frame["label"]
    rows = [
        [
            (int(t.query), f"query\n{short_label(labels[t.query])}", NEUTRAL_COLOR),
            (int(t.positive), f"positive ({t.relevance_positive:.2g})\n{short_label(labels[t.positive])}", CORRECT_COLOR),
            (int(t.negative), f"negative ({t.relevance_negative:.2g})\n{short_label(labels[t.negative])}", WRONG_COLOR),
        ]
        for t in sample[["query", "positive", "negative", "relevance_positive", "relevance_negative"]].itertuples(index=False)
    ]
    half = -(-len(rows) // 2)
    pairs = [rows[i] + (rows[i + half] if i + half < len(rows) else []) for i in range(half)]
    return draw_image_rows(catalogue, pairs, "Triplets: query, positive, negative (relevance)")

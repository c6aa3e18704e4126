"""Reads captions and colors back from figures."""

from matplotlib.colors import to_hex
from matplotlib.figure import Figure, SubFigure


def tiles(figure: Figure | SubFigure) -> list[tuple[str, str]]:
    """Return caption and frame color of each image in a figure."""
    return [(axes.get_title(), to_hex(axes.spines["top"].get_edgecolor())) for axes in figure.axes if axes.images]


def tile_rows(figure: Figure) -> list[list[tuple[str, str]]]:
    """Return caption and frame color of each image in a grid, by row of the grid."""
    rows: dict[int, list[tuple[str, str]]] = {}
    for axes in figure.axes:
        if axes.images:
            row = axes.get_subplotspec().rowspan.start
            rows.setdefault(row, []).append((axes.get_title(), to_hex(axes.spines["top"].get_edgecolor())))
    return [rows[row] for row in sorted(rows)]


def last_folder(label: str) -> str:
    return label.rsplit("/", 1)[-1]

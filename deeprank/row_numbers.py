"""Types of row numbers: all of them arrays of int64, each counting the rows of another table."""

from typing import NewType

import numpy as np
import numpy.typing as npt

# Rows of `Catalogue.frame`, the usable images of one catalogue version.
CatalogueRows = NewType("CatalogueRows", npt.NDArray[np.int64])
# Rows of a catalogue's Lance table, one per event; the column `image_row` holds them.
EventRows = NewType("EventRows", npt.NDArray[np.int64])
# Rows of an embedding table in Lance.
EmbeddingRows = NewType("EmbeddingRows", npt.NDArray[np.int64])
# Entries of an index: positions in its array of vectors, as FAISS numbers them; -1 for none.
IndexEntries = NewType("IndexEntries", npt.NDArray[np.int64])
# Positions in an index's table of images (`Index.rows`).
IndexPositions = NewType("IndexPositions", npt.NDArray[np.int64])

"""The files of an index, and index.json: the model, the catalogue, the search parameters and the checksums."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeprank.checksums import hash_file, read_manifest, write_manifest
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.search.lance_index import LanceIndex

FORMAT = 4
# rows.parquet: the indexed images, with ROW_COLUMNS as columns and their entries as index. vectors.npy: the vector of each entry.
# structure.faiss: of FAISS, for kinds other than exact. embedding_rows.npy: in place of both, the rows of the Lance table.
ROWS, VECTORS, STRUCTURE, EMBEDDING_ROWS, MANIFEST = "rows.parquet", "vectors.npy", "structure.faiss", "embedding_rows.npy", "index.json"
ROW_COLUMNS = ["path", "id", "label", "split", "image_row", "cluster"]
KEYS = {"search_params", "weights_hash", "churn", "catalogue", "checksums"}


def write_index_files(
    folder: Path, rows: pd.DataFrame, facts: dict[str, Any], catalogue: Catalogue, lance_index: LanceIndex | None
) -> None:
    """Write the table of images and index.json; the other files of the index lie in the folder already.

    Args:
        folder: of the index.
        rows: of the indexed images, with ROW_COLUMNS as columns and their entries as index.
        facts: search_params, weights_hash and churn, for index.json.
        catalogue: that the images are of.
        lance_index: that holds the vectors; None where vectors.npy does.

    """
    rows.to_parquet(folder / ROWS)
    if lance_index is not None:
        np.save(folder / EMBEDDING_ROWS, lance_index.embedding_rows)
        facts = facts | {"table": {"uri": lance_index.uri, "version": lance_index.version, "checksums": lance_index.checksums()}}
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and file.name != MANIFEST)
    reference = {"uri": catalogue.uri, "version": catalogue.version, "fingerprint": catalogue.fingerprint}
    checksums = {name: hash_file(folder / name) for name in names}
    write_manifest(folder / MANIFEST, {"format": FORMAT, **facts, "catalogue": reference, "checksums": checksums})


def read_index_manifest(folder: Path) -> dict[str, Any]:
    """Return the parsed index.json of a folder after checking every file of the index against its checksum.

    Raises:
        ModelError: a file is missing or damaged, or the index has another format.

    """
    manifest = read_manifest(folder / MANIFEST, "has no index", FORMAT, KEYS, "build the index again: deeprank run")
    for name, checksum in manifest["checksums"].items():
        _check_file(folder / name, checksum, MANIFEST)
    table = manifest.get("table", {"checksums": {}})
    for name, checksum in table["checksums"].items():
        _check_file(Path(table["uri"]) / name, checksum, str(folder / MANIFEST))
    return manifest


def _check_file(file: Path, checksum: str, manifest: str) -> None:
    if not file.exists() or hash_file(file) != checksum:
        raise ModelError(f"{file} is missing or damaged: its checksum differs from the one in {manifest}")

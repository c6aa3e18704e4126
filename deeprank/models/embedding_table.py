"""Embedding tables: a Lance table per model beside a catalogue, so that a model embeds each image once."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from lance import LanceDataset

import deeprank
from deeprank.checksums import hash_file
from deeprank.data.catalogue import Catalogue
from deeprank.data.store import append_rows, create_table, open_table
from deeprank.errors import ConfigError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder
from deeprank.models.inference import BATCH_SIZE, embed_batches
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import track
from deeprank.row_numbers import CatalogueRows, EmbeddingRows

# A killed job loses one chunk at most; 4,096 images take a CPU one minute and are 8 MB of the table.
BATCHES_PER_CHUNK = 4096 // BATCH_SIZE
MAX_ROWS_PER_READ = 4096
MAX_BYTES_IN_MEMORY = 2**31
# An embedding depends on this code and these packages, beside the bundle; if one changes, a new table is started.
SOURCE_FILES = (
    "models/embedding_model.py",
    "models/backbone.py",
    "models/familiarity.py",
    "models/preprocessing.py",
    "models/inference.py",
    "data/images.py",
)
PACKAGES = ("timm", "torchvision")


def catalogue_embeddings(bundle: Bundle, catalogue: Catalogue, rows: CatalogueRows, progress: str | None = None) -> npt.NDArray[np.float32]:
    """Return the embeddings of images of a catalogue; those that the table does not have are computed and added to it.

    Every call returns the same numbers for an image, whichever process computed them.

    Args:
        bundle: the model that embeds.
        catalogue: that holds the images; the table is beside it, see `embedding_table_uri`.
        rows: of the images in `catalogue.frame`.
        progress: text before the progress bar if there are images to embed; None: no progress bar.

    Returns:
        Float32 (len(rows), d) of unit length, in the order of `rows`.

    Raises:
        ModelError: the bundle is damaged, even if the table has all embeddings.

    """
    model, preprocessing = bundle.load()
    uri = _create_if_missing(embedding_table_uri(bundle, catalogue), model.embedding_dim)
    _embed_missing(uri, model, preprocessing, catalogue, rows, progress)
    return _read_embeddings(uri, catalogue.frame["id"].to_numpy()[rows])


def embed_missing(
    bundle: Bundle, catalogue: Catalogue, progress: str | None = None, shard: int = 1, num_shards: int = 1
) -> tuple[str, int]:
    """Embed the images that the table does not have; several processes and machines can divide a catalogue.

    The shard of an image depends only on its id and `num_shards`, so shards do not overlap and need no coordination.

    Args:
        bundle: the model that embeds.
        catalogue: that holds the images.
        progress: text before the progress bar; None: no progress bar.
        shard: 1 to `num_shards`.
        num_shards: number of shards.

    Returns:
        URI of the table, and number of images that were embedded.

    Raises:
        ConfigError: there is no such shard.
        ModelError: the bundle is damaged.

    """
    if not 1 <= shard <= num_shards:
        raise ConfigError(f"shard {shard} of {num_shards}: shards are numbered from 1 to {max(num_shards, 1)}")
    model, preprocessing = bundle.load()
    uri = _create_if_missing(embedding_table_uri(bundle, catalogue), model.embedding_dim)
    shards = catalogue.frame["id"].map(lambda image_id: int(image_id[:8], 16) % num_shards)
    rows = CatalogueRows(np.flatnonzero(shards == shard - 1))
    return uri, _embed_missing(uri, model, preprocessing, catalogue, rows, progress)


def embedding_table_uri(bundle: Bundle, catalogue: Catalogue) -> str:
    """Return the URI of the table with a bundle's embeddings of a catalogue: <catalogue>.embeddings/<model>-<key>.lance.

    The table has one row per image: `id`, and `vector`, a fixed-size list of float32. The key is a hash of everything that an
    embedding depends on: weights, model settings, preprocessing, code and packages.
    """
    checksums = bundle.config["checksums"]
    code = {name: hash_file(Path(deeprank.__file__).parent / name) for name in SOURCE_FILES}
    # The version of torch with its suffix: a build for another device is another build.
    packages = {"torch": torch.__version__} | {name: version(name) for name in PACKAGES}
    dependencies = json.dumps([checksums, bundle.config["model"], code, packages], sort_keys=True)
    key = hashlib.sha256(dependencies.encode()).hexdigest()
    return f"{catalogue.uri.rstrip('/').removesuffix('.lance')}.embeddings/{bundle.weights_hash[:16]}-{key[:16]}.lance"


def find_embedding_rows(table: LanceDataset, ids: Sequence[str] | npt.NDArray[np.object_]) -> EmbeddingRows:
    """Return the first row of each image in a table, -1 if there is none; two processes may both have embedded an image."""
    stored = table.to_table(columns=["id"])["id"].to_pandas().drop_duplicates()
    return EmbeddingRows(np.append(stored.index.to_numpy(), -1)[pd.Index(stored).get_indexer(pd.Index(ids))])


def read_vectors(table: LanceDataset, embedding_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the vectors of rows of a table, float32 (*embedding_rows.shape, d)."""
    unique_rows, inverse = np.unique(embedding_rows, return_inverse=True)
    column = table.take(unique_rows.tolist(), columns=["vector"])["vector"].combine_chunks()
    vectors: npt.NDArray[np.float32] = column.flatten().to_numpy().reshape(len(unique_rows), -1)[inverse.reshape(embedding_rows.shape)]
    return vectors


def table_embedding_dim(table: LanceDataset) -> int:
    """Return the number of elements of the vectors in a table."""
    return int(table.schema.field("vector").type.list_size)


def _create_if_missing(uri: str, embedding_dim: int) -> str:
    """Create an empty table if there is none."""
    create_table(uri, pa.schema([pa.field("id", pa.string()), pa.field("vector", pa.list_(pa.float32(), embedding_dim))]))
    return uri


def _embed_missing(
    uri: str, model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, rows: CatalogueRows, progress: str | None
) -> int:
    """Embed the images that the table does not have; returns their number."""
    table, ids = open_table(uri), catalogue.frame["id"].to_numpy()
    missing = CatalogueRows(np.unique(rows[find_embedding_rows(table, ids[rows]) < 0]))
    if not len(missing):
        return 0
    batches = iter(embed_batches(model, preprocessing, catalogue, missing))
    if progress:
        batches = iter(track(batches, description=progress, total=-(-len(missing) // BATCH_SIZE)))
    count = 0
    while chunk := list(islice(batches, BATCHES_PER_CHUNK)):
        vectors = np.concatenate(chunk)
        id_column = pa.array(ids[missing[count : count + len(vectors)]], pa.string())
        columns = [id_column, pa.FixedSizeListArray.from_arrays(vectors.ravel(), model.embedding_dim)]
        append_rows(uri, pa.Table.from_arrays(columns, schema=table.schema))
        count += len(vectors)
    return count


def _read_embeddings(uri: str, ids: npt.NDArray[np.object_]) -> npt.NDArray[np.float32]:
    """Return the embeddings (len(ids), d) of images that the table has."""
    table = open_table(uri)
    embedding_rows = find_embedding_rows(table, ids)
    vectors = _allocate(len(ids), table_embedding_dim(table))
    for start in range(0, len(ids), MAX_ROWS_PER_READ):
        vectors[start : start + MAX_ROWS_PER_READ] = read_vectors(table, embedding_rows[start : start + MAX_ROWS_PER_READ])
    return vectors


def _allocate(count: int, embedding_dim: int) -> npt.NDArray[np.float32]:
    """Return an uninitialized array of vectors; a large one is a memory-mapped temporary file."""
    shape = (count, embedding_dim)
    if 4 * count * embedding_dim < MAX_BYTES_IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)

"""Embeddings kept: an image is embedded once a model, in a Lance table beside its catalogue."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import lance
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch

import deeprank
from deeprank.checksums import hash_file
from deeprank.data.catalogue import Catalogue, exists
from deeprank.errors import ConfigError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder
from deeprank.models.inference import BATCH, embed_batches
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import track

# A killed job loses one chunk at most; 4,096 images are a minute of a CPU and 8 MB of a table.
BATCHES_A_CHUNK = 4096 // BATCH
ROWS_A_READ = 4096
# Bytes of vectors that are held in memory at once.
IN_MEMORY = 2**31
# What an embedding is computed with, beside the bundle: changed code or a changed package begins another table.
SOURCES = (
    "models/embedding_model.py",
    "models/backbone.py",
    "models/preprocessing.py",
    "models/inference.py",
    "data/images.py",
)
PACKAGES = ("timm", "torchvision")


def catalogue_embeddings(
    bundle: Bundle, catalogue: Catalogue, rows: npt.NDArray[np.int64], progress: str | None = None
) -> npt.NDArray[np.float32]:
    """Return the embeddings of rows of a catalogue's frame by a bundle's net: (len(rows), d) float32 of unit length, in order.

    Only what the table has not is computed, and kept. Each call gives the same numbers for an image, whoever computed them.

    Args:
        bundle: whose net embeds.
        catalogue: where the images are; the table lies beside it, see `table_uri`.
        rows: indices into `catalogue.frame`.
        progress: shown before a progress bar where there is something to embed; None for no bar.

    Raises:
        ModelError: the bundle is damaged, whether or not there is something to embed.

    """
    model, preprocessing = bundle.load()
    uri = _begin(embedding_table_uri(bundle, catalogue), model.embedding_dim)
    # Again, as a table begun by two processes at once may lose what the first had put in.
    while _embed_missing(uri, model, preprocessing, catalogue, rows, progress):
        pass
    return _read(uri, catalogue.frame["id"].to_numpy()[rows])


def embed_shard(bundle: Bundle, catalogue: Catalogue, part: int, parts: int, progress: str | None = None) -> int:
    """Embed what is missing of one of `parts` shares of a catalogue, so that processes and machines can divide it.

    Which share an image is in depends on its id and `parts` alone: shares never overlap, and none needs to know of another.

    Args:
        bundle: whose net embeds.
        catalogue: where the images are.
        part: 1 to `parts`.
        parts: how many shares there are.
        progress: shown before a progress bar; None for no bar.

    Returns:
        How many images were embedded.

    Raises:
        ConfigError: there is no such part.
        ModelError: the bundle is damaged.

    """
    if not 1 <= part <= parts:
        raise ConfigError(f"part {part} of {parts}: parts are counted from 1 to {max(parts, 1)}")
    model, preprocessing = bundle.load()
    uri = _begin(embedding_table_uri(bundle, catalogue), model.embedding_dim)
    share = catalogue.frame["id"].map(lambda image: int(image[:8], 16) % parts)
    return _embed_missing(uri, model, preprocessing, catalogue, np.flatnonzero(share == part - 1), progress)


def embedding_table_uri(bundle: Bundle, catalogue: Catalogue) -> str:
    """Return where the embeddings of a catalogue by a bundle's net are kept: <catalogue>.embeddings/<model>-<key>.lance.

    The table has a row an image: its id, and its vector, a fixed-size list of float32. The key holds all that a vector
    depends on: weights, network, preprocessing, the code here and the packages below it.
    """
    checksums = bundle.config["checksums"]
    code = {name: hash_file(Path(deeprank.__file__).parent / name) for name in SOURCES}
    # Its full name: a build for another device is another build.
    packages = {"torch": torch.__version__} | {name: version(name) for name in PACKAGES}
    facts = json.dumps([checksums, bundle.config["model"], code, packages], sort_keys=True)
    key = hashlib.sha256(facts.encode()).hexdigest()
    return f"{catalogue.uri.rstrip('/').removesuffix('.lance')}.embeddings/{bundle.weights_hash[:16]}-{key[:16]}.lance"


def _begin(uri: str, embedding_dim: int) -> str:
    """Make an empty table where there is none, before anything is embedded: an append that makes its table may undo another's."""
    schema = pa.schema([pa.field("id", pa.string()), pa.field("vector", pa.list_(pa.float32(), embedding_dim))])
    if not exists(uri):
        try:
            lance.write_dataset(schema.empty_table(), uri, mode="create")
        except OSError:
            # Another process began it meanwhile.
            if not exists(uri):
                raise
    return uri


def _embed_missing(
    uri: str, model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, rows: npt.NDArray[np.int64], progress: str | None
) -> int:
    """Embed those of rows of a catalogue's frame that the table has not; returns how many."""
    table, ids = lance.dataset(uri), catalogue.frame["id"].to_numpy()
    missing = np.unique(rows[offsets_of(table, ids[rows]) < 0])
    if not len(missing):
        return 0
    batches = iter(embed_batches(model, preprocessing, catalogue, missing))
    if progress:
        batches = iter(track(batches, description=progress, total=-(-len(missing) // BATCH)))
    done = 0
    while chunk := list(islice(batches, BATCHES_A_CHUNK)):
        vectors = np.concatenate(chunk)
        names = pa.array(ids[missing[done : done + len(vectors)]], pa.string())
        rows_of_chunk = [names, pa.FixedSizeListArray.from_arrays(vectors.ravel(), model.embedding_dim)]
        # Lance repeats an append whose commit another process was faster with.
        lance.write_dataset(pa.Table.from_arrays(rows_of_chunk, schema=table.schema), uri, mode="append")
        done += len(vectors)
    return done


def _read(uri: str, ids: npt.NDArray[np.object_]) -> npt.NDArray[np.float32]:
    """Return the vectors of images (len(ids), d), all of which the table has."""
    table = lance.dataset(uri)
    offsets = offsets_of(table, ids)
    vectors = _room(len(ids), dimensions_of(table))
    for start in range(0, len(ids), ROWS_A_READ):
        vectors[start : start + ROWS_A_READ] = vectors_at(table, offsets[start : start + ROWS_A_READ])
    return vectors


def vectors_at(table: lance.LanceDataset, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the vectors of rows of a table, (*offsets.shape, d)."""
    wanted, where = np.unique(offsets, return_inverse=True)
    column = table.take(wanted.tolist(), columns=["vector"])["vector"].combine_chunks()
    vectors: npt.NDArray[np.float32] = column.flatten().to_numpy().reshape(len(wanted), -1)[where.reshape(offsets.shape)]
    return vectors


def dimensions_of(table: lance.LanceDataset) -> int:
    """Return how long a table's vectors are."""
    return int(table.schema.field("vector").type.list_size)


def _room(count: int, embedding_dim: int) -> npt.NDArray[np.float32]:
    """Return an array of vectors to be filled; a large one lies in a file, which the system keeps in memory as far as it can."""
    shape = (count, embedding_dim)
    if 4 * count * embedding_dim < IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def offsets_of(table: lance.LanceDataset, ids: Sequence[str] | npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """Return the first row of a table that has each image, -1 where none has: two processes may have embedded it at once."""
    stored = table.to_table(columns=["id"])["id"].to_pandas().drop_duplicates()
    offsets: npt.NDArray[np.int64] = np.append(stored.index.to_numpy(), -1)[pd.Index(stored).get_indexer(pd.Index(ids))]
    return offsets

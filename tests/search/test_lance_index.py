"""An index in a Lance table: damaged files and missing embeddings are errors, and the lists are those of the clusters."""

import shutil
from pathlib import Path

import lance
import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.search.index import Index
from deeprank.search.lance_index import LanceIndex
from deeprank.search.search_params import SearchParams
from tests.search.builders import write_test_index

ALL_LISTS = SearchParams(kind="lance", nprobe=6)


def test_flipped_bit_in_the_table_is_an_error_naming_the_file(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    index = write_test_index(tmp_path / "i", ALL_LISTS, catalogue, bundle, embeddings)
    root = tmp_path / "i.lance"
    files = sorted(file for folder in ("data", "_indices") for file in (root / folder).rglob("*") if file.is_file())
    assert sorted(index.manifest["table"]["checksums"]) == sorted(str(file.relative_to(root)) for file in files)
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
        with pytest.raises(ModelError, match=f"{file} is missing or damaged"):
            Index(index.folder).search(embeddings[:1], 1)
        file.write_bytes(data)
    shutil.rmtree(root / "_versions")
    with pytest.raises(ModelError, match=f"of the embeddings {root} cannot be opened"):
        Index(index.folder).search(embeddings[:1], 1)


def test_image_without_an_embedding_in_the_table_is_an_error(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path
) -> None:
    index = write_test_index(tmp_path / "i", ALL_LISTS, catalogue, bundle, embeddings)
    with pytest.raises(ModelError, match=r"has no embedding of image ff: .*; build the index again"):
        LanceIndex.build(index.manifest["table"]["uri"], [catalogue.frame["id"][0], "ff"], index.clusters.centroids)


def test_every_vector_is_in_one_of_the_clusters_lists(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, tmp_path: Path) -> None:
    table = write_test_index(tmp_path / "i", ALL_LISTS, catalogue, bundle, embeddings).manifest["table"]
    dataset = lance.dataset(table["uri"], version=table["version"])
    (index,) = dataset.describe_indices()
    statistics = dataset.stats.index_stats(index.name)
    assert statistics["num_unindexed_rows"] == 0
    assert statistics["indices"][0]["num_partitions"] == 6

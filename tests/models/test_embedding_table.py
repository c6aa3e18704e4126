"""Embeddings are computed once a model and image, whoever asks, is killed or works beside others."""

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch

import deeprank
from deeprank.data.catalogue import Catalogue, exclude
from deeprank.errors import ConfigError, ModelError
from deeprank.models import embedding_table as embeddings
from deeprank.models import inference as embedding
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import create_model
from deeprank.models.embedding_table import SOURCES, catalogue_embeddings, embed_shard, embedding_table_uri
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from tests.conftest import SIZE, TINY, save_untrained


@pytest.fixture
def fresh(catalogue: Catalogue, tmp_path: Path) -> Catalogue:
    """The catalogue with no embeddings beside it."""
    uri = str(tmp_path / "fresh.lance")
    shutil.copytree(catalogue.uri, uri)
    return Catalogue(uri, catalogue.version)


def _all(catalogue: Catalogue) -> np.ndarray:
    return np.arange(len(catalogue.frame))


def _ids(catalogue: Catalogue, bundle: Bundle) -> list[str]:
    """Of the images in the table, as often as they are in it."""
    return lance.dataset(embedding_table_uri(bundle, catalogue)).to_table(columns=["id"])["id"].to_pylist()


def test_embeddings_are_the_nets_in_the_order_of_rows(fresh: Catalogue, bundle: Bundle) -> None:
    rows = np.array([7, 0, 47, 7, 12])
    direct = embed_catalogue(*bundle.load(), fresh, rows)
    for _ in range(2):
        found = catalogue_embeddings(bundle, fresh, rows)
        assert (found.dtype, found.shape) == (np.float32, (5, 16))
        assert np.allclose(found, direct, atol=1e-6)
    assert sorted(_ids(fresh, bundle)) == sorted(fresh.frame["id"].iloc[[7, 0, 47, 12]])


def test_only_what_is_new_is_embedded(fresh: Catalogue, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    forward = embedding.forward
    monkeypatch.setattr(embedding, "forward", lambda model, images: asked.append(len(images)) or forward(model, images))
    before = exclude(fresh, [3, 4, 20], ["for the test"] * 3)
    old = catalogue_embeddings(bundle, before, _all(before))
    assert sum(asked) == len(fresh.frame) - 3
    today = catalogue_embeddings(bundle, fresh, _all(fresh))
    assert sum(asked) == len(fresh.frame)
    again = catalogue_embeddings(bundle, fresh, _all(fresh))
    assert sum(asked) == len(fresh.frame)
    assert np.array_equal(again, today)
    assert np.array_equal(old, today[fresh.frame["id"].isin(before.frame["id"])])
    assert np.allclose(today, embed_catalogue(*bundle.load(), fresh, _all(fresh)), atol=1e-6)


def test_no_rows_are_no_embeddings(fresh: Catalogue, bundle: Bundle) -> None:
    assert catalogue_embeddings(bundle, fresh, np.empty(0, dtype=np.int64)).shape == (0, 16)


def test_more_than_a_chunk_and_more_than_a_read_keep_their_order(
    fresh: Catalogue, bundle: Bundle, embeddings: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_chunks(monkeypatch.setattr)
    monkeypatch.setattr("deeprank.models.embedding_table.ROWS_A_READ", 9)
    rows = np.random.default_rng(0).integers(0, len(fresh.frame), 100)
    assert np.allclose(catalogue_embeddings(bundle, fresh, rows, "embedding"), embeddings[rows], atol=1e-6)
    assert sorted(_ids(fresh, bundle)) == sorted(fresh.frame["id"].iloc[np.unique(rows)])
    monkeypatch.setattr("deeprank.models.embedding_table.IN_MEMORY", 1)
    in_a_file = catalogue_embeddings(bundle, fresh, rows)
    assert isinstance(in_a_file, np.memmap)
    assert np.allclose(in_a_file, embeddings[rows], atol=1e-6)


def _small_chunks(setattr_: object = setattr) -> None:
    """Eight images a batch, a batch a chunk."""
    for module, name, value in ((embedding, "BATCH", 8), (embeddings, "BATCH", 8), (embeddings, "BATCHES_A_CHUNK", 1)):
        setattr_(module, name, value)


def _work(folder: Path, catalogue: Catalogue, part: int, batches: int) -> None:
    """Embed a part of two; killed when it begins the batch after so many."""
    torch.set_num_threads(1)
    _small_chunks()
    forward, living = embedding.forward, iter(range(batches))

    def mortal(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
        if next(living, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(model, images)

    embedding.forward = mortal
    embed_shard(Bundle(folder), catalogue, part, 2)


def test_two_processes_share_a_catalogue_and_where_one_was_killed_its_part_goes_on(fresh: Catalogue, bundle: Bundle) -> None:
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_work, args=(bundle.folder, fresh, part, batches)) for part, batches in ((1, 1000), (2, 2))]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, -signal.SIGKILL]
    done = len(_ids(fresh, bundle))
    assert embed_shard(bundle, fresh, 1, 2) == 0
    assert embed_shard(bundle, fresh, 2, 2) == len(fresh.frame) - done > 0
    assert sorted(_ids(fresh, bundle)) == sorted(fresh.frame["id"])
    version = lance.dataset(embedding_table_uri(bundle, fresh)).version
    assert np.allclose(catalogue_embeddings(bundle, fresh, _all(fresh)), embed_catalogue(*bundle.load(), fresh, _all(fresh)), atol=1e-6)
    assert lance.dataset(embedding_table_uri(bundle, fresh)).version == version


def test_a_job_that_ends_early_has_kept_every_whole_chunk(fresh: Catalogue, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_chunks(monkeypatch.setattr)
    forward, living = embedding.forward, iter(range(3))

    def mortal(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
        if next(living, None) is None:
            raise KeyboardInterrupt
        return forward(model, images)

    monkeypatch.setattr(embedding, "forward", mortal)
    with pytest.raises(KeyboardInterrupt):
        catalogue_embeddings(bundle, fresh, _all(fresh))
    assert _ids(fresh, bundle) == fresh.frame["id"].tolist()[:24]
    monkeypatch.setattr(embedding, "forward", forward)
    catalogue_embeddings(bundle, fresh, _all(fresh))
    assert _ids(fresh, bundle) == fresh.frame["id"].tolist()


@pytest.mark.parametrize("part", [0, 5])
def test_parts_are_counted_from_one(fresh: Catalogue, bundle: Bundle, part: int) -> None:
    with pytest.raises(ConfigError, match=f"part {part} of 4: parts are counted from 1 to 4"):
        embed_shard(bundle, fresh, part, 4)


def test_of_a_image_that_two_processes_embedded_the_first_counts(fresh: Catalogue, bundle: Bundle) -> None:
    found = catalogue_embeddings(bundle, fresh, np.arange(5))
    table = lance.dataset(embedding_table_uri(bundle, fresh))
    vectors = pa.FixedSizeListArray.from_arrays(np.zeros(3 * 16, dtype=np.float32), 16)
    late = pa.Table.from_arrays([pa.array(fresh.frame["id"].iloc[2:5]), vectors], schema=table.schema)
    lance.write_dataset(late, table.uri, mode="append")
    assert len(_ids(fresh, bundle)) == 8
    assert np.array_equal(catalogue_embeddings(bundle, fresh, np.arange(5)), found)
    assert np.allclose(catalogue_embeddings(bundle, fresh, np.arange(7))[:5], found, atol=0)


def test_lance_can_index_the_vectors(fresh: Catalogue, bundle: Bundle) -> None:
    found = catalogue_embeddings(bundle, fresh, _all(fresh))
    nearest = lance.dataset(embedding_table_uri(bundle, fresh)).to_table(
        columns=["id"], nearest={"column": "vector", "q": found[5], "k": 3}
    )
    expected = np.argsort(((found - found[5]) ** 2).sum(axis=1))[:3]
    assert nearest["id"].to_pylist() == fresh.frame["id"].iloc[expected].tolist()


def test_another_model_has_another_table(fresh: Catalogue, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = create_model(TINY)
    uris = [embedding_table_uri(bundle, fresh), embedding_table_uri(save_untrained(tmp_path / "weights", seed=1), fresh)]
    other_size = Bundle.save(tmp_path / "size", model, TINY, Preprocessing(size=SIZE - 16), {})
    # A share that no weight knows of.
    other_share = Bundle.save(tmp_path / "share", model, TINY.model_copy(update={"pretrained_share": 0.2}), Preprocessing(size=SIZE), {})
    uris += [embedding_table_uri(other, fresh) for other in (other_size, other_share)]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0.0")
        uris.append(embedding_table_uri(bundle, fresh))
    assert len(set(uris)) == len(uris)
    assert all(uri.startswith(f"{fresh.uri.removesuffix('.lance')}.embeddings/") for uri in uris)
    same = Bundle.save(tmp_path / "same", model, TINY, Preprocessing(size=SIZE), {"catalogue": "another"})
    assert embedding_table_uri(same, fresh) == uris[0]
    assert embedding_table_uri(same, Catalogue("s3://bucket/catalogues/shop-1.lance", 3)).startswith(
        "s3://bucket/catalogues/shop-1.embeddings/"
    )


def test_changed_code_begins_another_table(fresh: Catalogue, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "deeprank"
    shutil.copytree(Path(deeprank.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = embedding_table_uri(bundle, fresh)
    monkeypatch.setattr(deeprank, "__file__", str(package / "__init__.py"))
    assert embedding_table_uri(bundle, fresh) == before
    uris = {before}
    for name in SOURCES:
        with (package / name).open("a") as source:
            source.write("# changed\n")
        uris.add(embedding_table_uri(bundle, fresh))
    assert len(uris) == 1 + len(SOURCES)


def test_no_source_of_an_embedding_is_forgotten() -> None:
    from steps.caching import reached_sources

    package = Path(deeprank.__file__).parent
    reached = {file.relative_to(package).as_posix() for file in reached_sources(package / "models" / "inference.py")}
    # Which images, how they are read, shown and complained of: none of it changes a vector.
    around = {"data/catalogue.py", "models/memory.py", "checksums.py", "errors.py", "settings.py", "reporting.py"}
    assert {name for name in reached if not name.endswith("__init__.py")} - around == set(SOURCES)


def test_a_damaged_model_is_noticed_though_all_is_embedded(fresh: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    copy = Bundle(shutil.copytree(bundle.folder, tmp_path / "copy"))
    catalogue_embeddings(copy, fresh, np.arange(3))
    with (copy.folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match="damaged"):
        catalogue_embeddings(copy, fresh, np.arange(3))

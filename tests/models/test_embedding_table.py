"""A model embeds each image once, also with several processes and killed ones."""

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
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ConfigError, ModelError
from deeprank.models import embedding_table, inference
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import create_model
from deeprank.models.embedding_table import SOURCE_FILES, catalogue_embeddings, embed_missing, embedding_table_uri
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from tests.conftest import SIZE, TINY, save_untrained


@pytest.fixture
def fresh(catalogue: Catalogue, tmp_path: Path) -> Catalogue:
    """The catalogue without an embedding table."""
    uri = str(tmp_path / "fresh.lance")
    shutil.copytree(catalogue.uri, uri)
    return Catalogue(uri, catalogue.version)


def _all_rows(catalogue: Catalogue) -> np.ndarray:
    return np.arange(len(catalogue.frame))


def _ids(catalogue: Catalogue, bundle: Bundle) -> list[str]:
    """Return the ids in the table, with repetitions."""
    return lance.dataset(embedding_table_uri(bundle, catalogue)).to_table(columns=["id"])["id"].to_pylist()


def test_embeddings_are_in_the_order_of_the_rows(fresh: Catalogue, bundle: Bundle) -> None:
    rows = np.array([7, 0, 47, 7, 12])
    direct = embed_catalogue(*bundle.load(), fresh, rows)
    for _ in range(2):
        result = catalogue_embeddings(bundle, fresh, rows)
        assert (result.dtype, result.shape) == (np.float32, (5, 16))
        assert np.allclose(result, direct, atol=1e-6)
    assert sorted(_ids(fresh, bundle)) == sorted(fresh.frame["id"].iloc[[7, 0, 47, 12]])


def test_only_new_images_are_embedded(fresh: Catalogue, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_sizes: list[int] = []
    forward = inference.forward
    monkeypatch.setattr(inference, "forward", lambda model, images: batch_sizes.append(len(images)) or forward(model, images))
    earlier = np.setdiff1d(_all_rows(fresh), [3, 4, 20])
    old = catalogue_embeddings(bundle, fresh, earlier)
    assert sum(batch_sizes) == len(fresh.frame) - 3
    complete = catalogue_embeddings(bundle, fresh, _all_rows(fresh))
    assert sum(batch_sizes) == len(fresh.frame)
    again = catalogue_embeddings(bundle, fresh, _all_rows(fresh))
    assert sum(batch_sizes) == len(fresh.frame)
    assert np.array_equal(again, complete)
    assert np.array_equal(old, complete[earlier])
    assert np.allclose(complete, embed_catalogue(*bundle.load(), fresh, _all_rows(fresh)), atol=1e-6)


def test_no_rows_are_no_embeddings(fresh: Catalogue, bundle: Bundle) -> None:
    assert catalogue_embeddings(bundle, fresh, np.empty(0, dtype=np.int64)).shape == (0, 16)


def test_the_order_holds_across_chunks_and_reads(
    fresh: Catalogue, bundle: Bundle, embeddings: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_chunks(monkeypatch.setattr)
    monkeypatch.setattr("deeprank.models.embedding_table.MAX_ROWS_PER_READ", 9)
    rows = np.random.default_rng(0).integers(0, len(fresh.frame), 100)
    assert np.allclose(catalogue_embeddings(bundle, fresh, rows, "embedding"), embeddings[rows], atol=1e-6)
    assert sorted(_ids(fresh, bundle)) == sorted(fresh.frame["id"].iloc[np.unique(rows)])
    monkeypatch.setattr("deeprank.models.embedding_table.MAX_BYTES_IN_MEMORY", 1)
    in_file = catalogue_embeddings(bundle, fresh, rows)
    assert isinstance(in_file, np.memmap)
    assert np.allclose(in_file, embeddings[rows], atol=1e-6)


def _small_chunks(setattr_: object = setattr) -> None:
    """Set eight images per batch and one batch per chunk."""
    for module, name, value in (
        (inference, "BATCH_SIZE", 8),
        (embedding_table, "BATCH_SIZE", 8),
        (embedding_table, "BATCHES_PER_CHUNK", 1),
    ):
        setattr_(module, name, value)


def _embed_shard_until_killed(folder: Path, catalogue: Catalogue, shard: int, num_batches: int) -> None:
    """Embed one of two shards; the process kills itself after some batches."""
    torch.set_num_threads(1)
    _small_chunks()
    forward, remaining = inference.forward, iter(range(num_batches))

    def forward_or_die(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
        if next(remaining, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(model, images)

    inference.forward = forward_or_die
    embed_missing(Bundle(folder), catalogue, shard=shard, num_shards=2)


def test_a_killed_shard_is_completed_by_the_next_run(fresh: Catalogue, bundle: Bundle) -> None:
    context = multiprocessing.get_context("spawn")
    jobs = [
        context.Process(target=_embed_shard_until_killed, args=(bundle.folder, fresh, shard, num_batches))
        for shard, num_batches in ((1, 1000), (2, 2))
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, -signal.SIGKILL]
    done = len(_ids(fresh, bundle))
    assert embed_missing(bundle, fresh, shard=1, num_shards=2)[1] == 0
    assert embed_missing(bundle, fresh, shard=2, num_shards=2)[1] == len(fresh.frame) - done > 0
    assert sorted(_ids(fresh, bundle)) == sorted(fresh.frame["id"])
    version = lance.dataset(embedding_table_uri(bundle, fresh)).version
    assert np.allclose(
        catalogue_embeddings(bundle, fresh, _all_rows(fresh)), embed_catalogue(*bundle.load(), fresh, _all_rows(fresh)), atol=1e-6
    )
    assert lance.dataset(embedding_table_uri(bundle, fresh)).version == version


def test_an_interrupted_job_keeps_its_complete_chunks(fresh: Catalogue, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_chunks(monkeypatch.setattr)
    forward, remaining = inference.forward, iter(range(3))

    def forward_or_interrupt(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
        if next(remaining, None) is None:
            raise KeyboardInterrupt
        return forward(model, images)

    monkeypatch.setattr(inference, "forward", forward_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        catalogue_embeddings(bundle, fresh, _all_rows(fresh))
    assert _ids(fresh, bundle) == fresh.frame["id"].tolist()[:24]
    monkeypatch.setattr(inference, "forward", forward)
    catalogue_embeddings(bundle, fresh, _all_rows(fresh))
    assert _ids(fresh, bundle) == fresh.frame["id"].tolist()


@pytest.mark.parametrize("shard", [0, 5])
def test_shards_are_numbered_from_one(fresh: Catalogue, bundle: Bundle, shard: int) -> None:
    with pytest.raises(ConfigError, match=f"shard {shard} of 4: shards are numbered from 1 to 4"):
        embed_missing(bundle, fresh, shard=shard, num_shards=4)


def test_the_first_of_two_rows_of_an_image_is_used(fresh: Catalogue, bundle: Bundle) -> None:
    first = catalogue_embeddings(bundle, fresh, np.arange(5))
    table = lance.dataset(embedding_table_uri(bundle, fresh))
    vectors = pa.FixedSizeListArray.from_arrays(np.zeros(3 * 16, dtype=np.float32), 16)
    second = pa.Table.from_arrays([pa.array(fresh.frame["id"].iloc[2:5]), vectors], schema=table.schema)
    lance.write_dataset(second, table.uri, mode="append")
    assert len(_ids(fresh, bundle)) == 8
    assert np.array_equal(catalogue_embeddings(bundle, fresh, np.arange(5)), first)
    assert np.allclose(catalogue_embeddings(bundle, fresh, np.arange(7))[:5], first, atol=0)


def test_lance_can_index_the_vectors(fresh: Catalogue, bundle: Bundle) -> None:
    vectors = catalogue_embeddings(bundle, fresh, _all_rows(fresh))
    nearest = lance.dataset(embedding_table_uri(bundle, fresh)).to_table(
        columns=["id"], nearest={"column": "vector", "q": vectors[5], "k": 3}
    )
    expected = np.argsort(((vectors - vectors[5]) ** 2).sum(axis=1))[:3]
    assert nearest["id"].to_pylist() == fresh.frame["id"].iloc[expected].tolist()


def test_another_model_has_another_table(fresh: Catalogue, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = create_model(TINY)
    uris = [embedding_table_uri(bundle, fresh), embedding_table_uri(save_untrained(tmp_path / "weights", seed=1), fresh)]
    other_size = Bundle.save(tmp_path / "size", model, TINY, Preprocessing(size=SIZE - 16), {})
    # The share is in the settings, but in no weight.
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


def test_changed_code_has_another_table(fresh: Catalogue, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "deeprank"
    shutil.copytree(Path(deeprank.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = embedding_table_uri(bundle, fresh)
    monkeypatch.setattr(deeprank, "__file__", str(package / "__init__.py"))
    assert embedding_table_uri(bundle, fresh) == before
    uris = {before}
    for name in SOURCE_FILES:
        with (package / name).open("a") as source:
            source.write("# changed\n")
        uris.add(embedding_table_uri(bundle, fresh))
    assert len(uris) == 1 + len(SOURCE_FILES)


def test_the_source_files_of_an_embedding_are_complete() -> None:
    from steps.caching import reached_sources

    package = Path(deeprank.__file__).parent
    reached = {file.relative_to(package).as_posix() for file in reached_sources(package / "models" / "inference.py")}
    # These select and read images, show progress and report errors; they change no vector.
    unrelated = {
        "data/catalogue.py",
        "data/object_store.py",
        "data/store.py",
        "memory.py",
        "checksums.py",
        "cpu.py",
        "errors.py",
        "reporting.py",
        "row_numbers.py",
    }
    unrelated |= {"cpu.py", "settings.py", "renamed_settings.py", "nearest_names.py"}
    assert {name for name in reached if not name.endswith("__init__.py")} - unrelated == set(SOURCE_FILES)


def test_a_damaged_model_is_detected_with_a_complete_table(fresh: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    copy = Bundle(shutil.copytree(bundle.folder, tmp_path / "copy"))
    catalogue_embeddings(copy, fresh, np.arange(3))
    with (copy.folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match="damaged"):
        catalogue_embeddings(copy, fresh, np.arange(3))

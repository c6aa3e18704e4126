"""Embedding many images gives the embeddings of the single images, in order."""

import threading

import numpy as np
import pytest
import torch

from deeprank.data.catalogue import Catalogue
from deeprank.memory import keep_freed_memory
from deeprank.models.bundle import Bundle
from deeprank.models.inference import BATCH_SIZE, device, embed_catalogue, run_in_background
from tests.models.embedding import embed_jpegs


def test_a_catalogue_embeds_as_single_images_do(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray) -> None:
    model, preprocessing = bundle.load()
    rows = np.array([7, 0, 47, 7])
    one_by_one = [embed_jpegs(model, preprocessing, [jpeg])[0] for jpeg in catalogue.read_jpegs(rows)]
    assert embeddings.dtype == np.float32
    assert np.allclose(embed_catalogue(model, preprocessing, catalogue, rows), one_by_one, atol=1e-5)
    assert np.allclose(embeddings[rows], one_by_one, atol=1e-5)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_the_order_holds_across_batches(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray) -> None:
    rows = np.random.default_rng(0).integers(0, len(catalogue.frame), 2 * BATCH_SIZE + 5)
    result = embed_catalogue(*bundle.load(), catalogue, rows, "embedding")
    assert np.allclose(result, embeddings[rows], atol=1e-5)


def test_no_rows_are_no_embeddings(catalogue: Catalogue, bundle: Bundle) -> None:
    assert embed_catalogue(*bundle.load(), catalogue, np.empty(0, dtype=np.int64)).shape == (0, 16)


def test_embedding_leaves_the_model_in_evaluation_mode(catalogue: Catalogue, bundle: Bundle) -> None:
    model, preprocessing = bundle.load()
    model.train()
    before = [value.clone() for value in model.buffers()]
    embed_jpegs(model, preprocessing, catalogue.read_jpegs([0, 1]))
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


def test_background_jobs_are_ordered_and_limited() -> None:
    started: list[int] = []
    gate = threading.Semaphore(0)

    def job(number: int) -> torch.Tensor:
        started.append(number)
        if number == 5:
            gate.release()
        return torch.tensor(number)

    results = run_in_background([lambda n=n: job(n) for n in range(20)], max_prefetched=5)
    assert int(next(results)) == 0
    gate.acquire()
    assert max(started) == 5
    assert [int(result) for result in results] == list(range(1, 20))


def test_an_error_in_a_background_job_is_raised() -> None:
    def fail() -> torch.Tensor:
        raise ValueError("broken job")

    with pytest.raises(ValueError, match="broken job"):
        list(run_in_background([lambda: torch.zeros(1), fail]))


def test_there_is_always_a_device() -> None:
    assert torch.zeros(1, device=device()).sum() == 0


def test_keep_freed_memory_can_be_called_twice() -> None:
    assert keep_freed_memory() == keep_freed_memory()

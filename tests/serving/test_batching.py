"""Concurrent requests: common batches, limits of queue and time, and no mixed-up results."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from deeprank.errors import DataError
from deeprank.models.bundle import Bundle
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.serving.batching import Batcher, BatchSettings
from deeprank.serving.errors import QueueFullError, RequestTimeoutError
from tests.conftest import save_untrained
from tests.drawing import encoded, pattern

IMAGES = [encoded(pattern(seed)) for seed in range(12)]
ONE_WORKER = BatchSettings(num_workers=1, num_decoders=1)


@pytest.fixture(scope="module")
def searcher(bundle: Bundle) -> Searcher:
    return Searcher(Release(bundle.folder))


class BlockingDecoder:
    """Decodes images only after `unblock`."""

    def __init__(self) -> None:
        self._unblocked = threading.Event()

    def unblock(self) -> None:
        self._unblocked.set()

    def __call__(self, searcher: Searcher, image: bytes) -> Tensor:
        assert self._unblocked.wait(20)
        return searcher.preprocess(image)


def run_batcher(
    settings: BatchSettings, use: Callable[[Batcher], Coroutine[Any, Any, Any]], decoder: BlockingDecoder | None = None
) -> tuple[Any, list[int]]:
    """Return the result of using a batcher, and the sizes of its batches; the queue must be empty at the end."""
    batch_sizes: list[int] = []
    batcher = Batcher(settings, decoder or Searcher.preprocess, batch_sizes.append)

    async def main() -> Any:
        result = await use(batcher)
        for _ in range(200):
            if not batcher.admission.queue_size:
                break
            await asyncio.sleep(0.01)
        assert batcher.admission.queue_size == 0
        return result

    try:
        return asyncio.run(main()), batch_sizes
    finally:
        if decoder:
            decoder.unblock()
        batcher.close()


def test_concurrent_requests_share_batches_not_results(searcher: Searcher) -> None:
    async def use(batcher: Batcher) -> list[np.ndarray]:
        return await asyncio.gather(*(batcher.embed(searcher, IMAGES[n : n + 1 + n % 3]) for n in range(10)))

    results, batch_sizes = run_batcher(BatchSettings(num_workers=1, num_decoders=1, max_wait_ms=10_000), use)
    expected = searcher.embed(IMAGES)
    for n, embeddings in enumerate(results):
        assert np.allclose(embeddings, expected[n : n + 1 + n % 3], atol=1e-5)
    assert max(batch_sizes) <= 16
    assert sum(batch_sizes) == sum(1 + n % 3 for n in range(10))
    assert len(batch_sizes) < 10


def test_a_batch_is_not_larger_than_its_limit(searcher: Searcher) -> None:
    async def use(batcher: Batcher) -> list[np.ndarray]:
        return await asyncio.gather(*(batcher.embed(searcher, [image]) for image in IMAGES))

    _, batch_sizes = run_batcher(BatchSettings(num_workers=1, num_decoders=2, max_batch_size=4, max_wait_ms=10_000), use)
    assert max(batch_sizes) <= 4
    assert sum(batch_sizes) == len(IMAGES)


def test_a_batch_never_holds_images_of_two_releases(searcher: Searcher, tmp_path: Path) -> None:
    searchers = (searcher, Searcher(Release(save_untrained(tmp_path, seed=5).folder)))
    decoder = BlockingDecoder()

    async def use(batcher: Batcher) -> list[np.ndarray]:
        tasks = [asyncio.create_task(batcher.embed(searchers[n % 2], [image])) for n, image in enumerate(IMAGES)]
        await asyncio.sleep(0)
        decoder.unblock()
        return await asyncio.gather(*tasks)

    results, _ = run_batcher(BatchSettings(num_workers=2, num_decoders=2), use, decoder)
    for n, embedding in enumerate(results):
        assert np.allclose(embedding, searchers[n % 2].embed([IMAGES[n]]), atol=1e-5)


def test_an_unreadable_image_affects_no_other_request(searcher: Searcher) -> None:
    async def use(batcher: Batcher) -> list[Any]:
        requests = [batcher.embed(searcher, [image]) for image in (IMAGES[0], b"text", IMAGES[1])]
        return await asyncio.gather(*requests, return_exceptions=True)

    (first, second, third), _ = run_batcher(ONE_WORKER, use)
    assert np.allclose(np.concatenate([first, third]), searcher.embed(IMAGES[:2]), atol=1e-5)
    assert isinstance(second, DataError)


def test_a_full_queue_refuses_requests_with_a_retry_time(searcher: Searcher) -> None:
    decoder = BlockingDecoder()

    async def use(batcher: Batcher) -> int:
        tasks = [asyncio.create_task(batcher.embed(searcher, IMAGES[:2])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="the queue is full: try again in") as refusal:
            await batcher.embed(searcher, IMAGES[:2])
        with pytest.raises(QueueFullError):
            await asyncio.gather(batcher.run(int), batcher.run(int))
        decoder.unblock()
        await asyncio.gather(*tasks)
        while batcher.admission.queue_size:
            await asyncio.sleep(0.01)
        # The empty queue accepts requests again.
        await batcher.embed(searcher, IMAGES[:5])
        return refusal.value.retry_after

    retry_after, _ = run_batcher(BatchSettings(num_workers=1, num_decoders=1, max_queue_size=5), use, decoder)
    assert retry_after >= 1


def test_a_request_without_a_result_in_time_fails(searcher: Searcher) -> None:
    decoder = BlockingDecoder()

    async def use(batcher: Batcher) -> None:
        with pytest.raises(RequestTimeoutError, match=r"no result within 0\.05 s"):
            await batcher.embed(searcher, IMAGES[:1])
        decoder.unblock()

    _, batch_sizes = run_batcher(BatchSettings(num_workers=1, num_decoders=1, timeout_s=0.05), use, decoder)
    assert sum(batch_sizes) <= 1


def test_images_of_cancelled_requests_are_not_decoded(searcher: Searcher) -> None:
    decoder = BlockingDecoder()

    async def use(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.embed(searcher, [image])) for image in IMAGES]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.sleep(0)
        decoder.unblock()
        await asyncio.gather(*tasks, return_exceptions=True)

    _, batch_sizes = run_batcher(ONE_WORKER, use, decoder)
    assert sum(batch_sizes) == 1


def test_a_failing_model_fails_only_its_batch(searcher: Searcher, bundle: Bundle) -> None:
    broken = Searcher(Release(bundle.folder))
    broken.model.frozen = None  # type: ignore[assignment]

    async def use(batcher: Batcher) -> np.ndarray:
        with pytest.raises(TypeError):
            await batcher.embed(broken, IMAGES[:1])
        return await batcher.embed(searcher, IMAGES[:1])

    result, _ = run_batcher(ONE_WORKER, use)
    assert np.allclose(result, searcher.embed(IMAGES[:1]), atol=1e-5)


def test_other_functions_return_their_result_or_exception() -> None:
    async def use(batcher: Batcher) -> int:
        with pytest.raises(ZeroDivisionError):
            await batcher.run(divmod, 1, 0)
        return await batcher.run(int, "7")

    assert run_batcher(ONE_WORKER, use)[0] == 7

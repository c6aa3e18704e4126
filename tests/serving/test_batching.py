"""Many requests at once: batched, bounded, in time, and never mixed up."""

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
from deeprank.serving.batching import Batcher, BatchSettings, BusyError, LateError
from tests.conftest import save_untrained
from tests.drawing import encoded, pattern

IMAGES = [encoded(pattern(seed)) for seed in range(12)]


@pytest.fixture(scope="module")
def searcher(bundle: Bundle) -> Searcher:
    return Searcher(Release(bundle.folder))


class Gate:
    """Decodes only when it is open."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, searcher: Searcher, image: bytes) -> Tensor:
        assert self.open.wait(20)
        return searcher.prepare(image)


def run(settings: BatchSettings, ask: Callable[[Batcher], Coroutine[Any, Any, Any]], gate: Gate | None = None) -> tuple[Any, list[int]]:
    """Return what is asked of a batcher, and the sizes of its batches; nothing waits at the end."""
    sizes: list[int] = []
    batcher = Batcher(settings, gate or Searcher.prepare, sizes.append)

    async def main() -> Any:
        found = await ask(batcher)
        for _ in range(200):
            if not batcher.waiting:
                break
            await asyncio.sleep(0.01)
        assert batcher.waiting == 0
        return found

    try:
        return asyncio.run(main()), sizes
    finally:
        if gate:
            gate.open.set()
        batcher.close()


def test_requests_that_wait_together_are_forwarded_together_and_answered_each_with_its_own(searcher: Searcher) -> None:
    async def ask(batcher: Batcher) -> list[np.ndarray]:
        return await asyncio.gather(*(batcher.embed(searcher, IMAGES[n : n + 1 + n % 3]) for n in range(10)))

    found, sizes = run(BatchSettings(nets=1, decoders=1, wait_ms=10_000), ask)
    expected = searcher.embed(IMAGES)
    for n, embeddings in enumerate(found):
        assert np.allclose(embeddings, expected[n : n + 1 + n % 3], atol=1e-5)
    assert max(sizes) <= 16
    assert sum(sizes) == sum(1 + n % 3 for n in range(10))
    assert len(sizes) < 10


def test_a_batch_is_no_larger_than_allowed(searcher: Searcher) -> None:
    async def ask(batcher: Batcher) -> list[np.ndarray]:
        return await asyncio.gather(*(batcher.embed(searcher, [image]) for image in IMAGES))

    _, sizes = run(BatchSettings(nets=1, decoders=2, largest=4, wait_ms=10_000), ask)
    assert max(sizes) <= 4
    assert sum(sizes) == len(IMAGES)


def test_two_releases_are_never_in_one_batch(searcher: Searcher, tmp_path: Path) -> None:
    other = Searcher(Release(save_untrained(tmp_path, seed=5).folder))
    gate = Gate()

    async def ask(batcher: Batcher) -> list[np.ndarray]:
        asked = [asyncio.create_task(batcher.embed((searcher, other)[n % 2], [image])) for n, image in enumerate(IMAGES)]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(*asked)

    found, _ = run(BatchSettings(nets=2, decoders=2), ask, gate)
    for n, embedding in enumerate(found):
        assert np.allclose(embedding, (searcher, other)[n % 2].embed([IMAGES[n]]), atol=1e-5)


def test_what_is_no_image_spoils_no_other_request(searcher: Searcher) -> None:
    async def ask(batcher: Batcher) -> list[Any]:
        asked = [batcher.embed(searcher, [image]) for image in (IMAGES[0], b"text", IMAGES[1])]
        return await asyncio.gather(*asked, return_exceptions=True)

    (first, second, third), _ = run(BatchSettings(nets=1, decoders=1), ask)
    assert np.allclose(np.concatenate([first, third]), searcher.embed(IMAGES[:2]), atol=1e-5)
    assert isinstance(second, DataError)


def test_beyond_the_bound_requests_are_sent_away_and_told_when_to_come_back(searcher: Searcher) -> None:
    gate = Gate()

    async def ask(batcher: Batcher) -> int:
        waiting = [asyncio.create_task(batcher.embed(searcher, IMAGES[:2])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="too many requests") as refused:
            await batcher.embed(searcher, IMAGES[:2])
        with pytest.raises(BusyError):
            await asyncio.gather(batcher.run(int), batcher.run(int))
        gate.open.set()
        await asyncio.gather(*waiting)
        while batcher.waiting:
            await asyncio.sleep(0.01)
        # When all is answered there is room again.
        await batcher.embed(searcher, IMAGES[:5])
        return refused.value.retry_after

    retry_after, _ = run(BatchSettings(nets=1, decoders=1, waiting=5), ask, gate)
    assert retry_after >= 1


def test_an_answer_that_comes_too_late_is_not_waited_for(searcher: Searcher) -> None:
    gate = Gate()

    async def ask(batcher: Batcher) -> None:
        with pytest.raises(LateError, match=r"no answer within 0\.05 s"):
            await batcher.embed(searcher, IMAGES[:1])
        gate.open.set()

    _, sizes = run(BatchSettings(nets=1, decoders=1, seconds=0.05), ask, gate)
    assert sum(sizes) <= 1


def test_who_left_is_not_decoded_for(searcher: Searcher) -> None:
    gate = Gate()

    async def ask(batcher: Batcher) -> None:
        asked = [asyncio.create_task(batcher.embed(searcher, [image])) for image in IMAGES]
        await asyncio.sleep(0)
        for task in asked[1:]:
            task.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*asked, return_exceptions=True)

    _, sizes = run(BatchSettings(nets=1, decoders=1), ask, gate)
    assert sum(sizes) == 1


def test_a_net_that_fails_fails_its_batch_alone(searcher: Searcher, bundle: Bundle) -> None:
    broken = Searcher(Release(bundle.folder))
    broken.model[0].lower = None  # type: ignore[assignment]

    async def ask(batcher: Batcher) -> np.ndarray:
        with pytest.raises(TypeError):
            await batcher.embed(broken, IMAGES[:1])
        return await batcher.embed(searcher, IMAGES[:1])

    found, _ = run(BatchSettings(nets=1, decoders=1), ask)
    assert np.allclose(found, searcher.embed(IMAGES[:1]), atol=1e-5)


def test_other_work_runs_beside_and_raises_what_it_raises(searcher: Searcher) -> None:
    async def ask(batcher: Batcher) -> int:
        with pytest.raises(ZeroDivisionError):
            await batcher.run(divmod, 1, 0)
        return await batcher.run(int, "7")

    assert run(BatchSettings(nets=1, decoders=1), ask)[0] == 7

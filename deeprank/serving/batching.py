"""Many requests, few forwards: images are decoded on threads, and a net takes whatever waits for it as one batch."""

import asyncio
import ctypes
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import faiss
import torch
from pydantic import Field
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from deeprank.errors import DeepRankError
from deeprank.models.memory import keep_freed_memory
from deeprank.registry.searcher import Searcher, Vectors
from deeprank.settings import Settings

# After so many seconds without work, memory is given back.
IDLE = 5.0
P = ParamSpec("P")
T = TypeVar("T")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BatchSettings(Settings):
    """How requests share the cores.

    Attributes:
        nets: threads that forward, each with its own share of the cores: two on one core each do more than one on both.
        largest: images of one batch.
        wait_ms: how long a net waits for images that are still being decoded.
        decoders: threads that decode images and look into the index.
        waiting: images that may wait or be in work; beyond that a request is answered 429.
        seconds: until an answer; then 503.

    """

    nets: int = Field(default_factory=lambda: 1 if torch.accelerator.is_available() else min(_cores(), 4), ge=1)
    largest: int = Field(16, ge=1)
    wait_ms: float = Field(3.0, ge=0)
    decoders: int = Field(default_factory=_cores, ge=1)
    waiting: int = Field(128, ge=1)
    seconds: float = Field(20.0, gt=0)


class BusyError(DeepRankError):
    """More is waiting than is let in; `retry_after` seconds from now it will be less."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many requests are waiting: try again in {retry_after} s")
        self.retry_after = retry_after


class LateError(DeepRankError):
    """There was no answer in time."""


class NotReadyError(DeepRankError):
    """No release is loaded yet."""


@dataclass(eq=False)
class _Job:
    """The images of one request on their way."""

    searcher: Searcher
    images: Sequence[bytes]
    done: "asyncio.Future[Vectors]"
    loop: asyncio.AbstractEventLoop
    prepared: list[Tensor] = field(default_factory=list)


class Batcher:
    """Embeds for many requests at once.

    Args:
        settings: how.
        decode: turns an image file's bytes into the net's input, on a thread; may refuse them.
        batched: hears the size of each batch.

    """

    def __init__(
        self,
        settings: BatchSettings,
        decode: Callable[[Searcher, bytes], Tensor] = Searcher.prepare,
        batched: Callable[[int], object] = int,
    ) -> None:
        self.settings, self._decode, self._batched = settings, decode, batched
        keep_freed_memory()
        # Of the whole process: a search is one query against one matrix.
        threadpool_limits(1, user_api="blas")
        self.waiting = 0
        self._seconds_each = 0.02
        self._decoding = 0
        self._worked = False
        self._ready: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(settings.decoders, "decode", initializer=_use_threads, initargs=(1,))
        share = max(1, _cores() // settings.nets)
        self._nets = [threading.Thread(target=self._forward_all, args=(share,), name=f"net-{n}", daemon=True) for n in range(settings.nets)]
        for thread in self._nets:
            thread.start()

    async def embed(self, searcher: Searcher, images: Sequence[bytes]) -> Vectors:
        """Return the embeddings (n, d) of image files' bytes by a release's net.

        Raises:
            BusyError: too much is waiting.
            LateError: it took too long.
            DataError: some bytes are no image that can be read.

        """
        loop = asyncio.get_running_loop()
        job = _Job(searcher, images, loop.create_future(), loop)
        self._admit(len(images))
        with self._changed:
            self._decoding += 1
        self._pool.submit(self._prepare, job)
        return await self._in_time(job.done)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function gives, run on a decoder's thread.

        Raises:
            BusyError, LateError: as of `embed`; and what the function raises.

        """
        self._admit(1)
        try:
            return await self.finish(function, *args, **kwargs)
        finally:
            self._left(1)

    async def finish(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the same for a request that was let in already, and is not to be sent away with half of its work done."""
        return await self._in_time(asyncio.wrap_future(self._pool.submit(function, *args, **kwargs)))

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self._pool.shutdown(wait=True)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._nets:
            thread.join()

    async def _in_time(self, answer: "asyncio.Future[T]") -> T:
        try:
            async with asyncio.timeout(self.settings.seconds):
                return await answer
        except TimeoutError:
            raise LateError(f"no answer within {self.settings.seconds:g} s: the service is overloaded") from None

    def _admit(self, count: int) -> None:
        if self.waiting + count > self.settings.waiting:
            raise BusyError(max(1, math.ceil(self.waiting * self._seconds_each)))
        self.waiting += count

    def _left(self, count: int) -> None:
        self.waiting -= count

    def _prepare(self, job: _Job) -> None:
        error: Exception | None = None
        try:
            prepared: list[Tensor] = []
            for image in job.images:
                # Nobody waits for it any more.
                if job.done.cancelled():
                    break
                prepared.append(self._decode(job.searcher, image))
            else:
                job.prepared = prepared
        except Exception as found:  # whatever it is, it is the request's answer
            error = found
        with self._changed:
            self._decoding -= 1
            self._worked = True
            if job.prepared:
                self._ready.append(job)
            self._changed.notify()
        if not job.prepared:
            self._tell([job], [error])

    def _take(self) -> list[_Job]:
        """Wait for jobs; return those of one release that make a batch, none at the end."""
        with self._changed:
            idle = not self._changed.wait_for(lambda: self._ready or self._closed, IDLE) and self._worked and not self._decoding
            self._worked = self._worked and not idle
        if idle:
            _give_memory_back()
            return []
        with self._changed:
            full = self.settings.largest
            self._changed.wait_for(lambda: not self._decoding or len(self._ready) >= full or self._closed, self.settings.wait_ms / 1000)
            jobs: list[_Job] = []
            size = 0
            while self._ready:
                job = self._ready[0]
                size += len(job.images)
                if jobs and (size > full or job.searcher is not jobs[0].searcher):
                    break
                jobs.append(self._ready.popleft())
            if self._ready:
                self._changed.notify()
            return jobs

    def _forward_all(self, threads: int) -> None:
        _use_threads(threads)
        while not self._closed or self._ready:
            jobs = self._take()
            if jobs:
                self._forward(jobs)

    def _forward(self, jobs: list[_Job]) -> None:
        images = [image for job in jobs for image in job.prepared]
        found: list[Vectors | Exception | None] = []
        start = time.perf_counter()
        try:
            embeddings = jobs[0].searcher.forward(torch.stack(images))
            self._seconds_each = (time.perf_counter() - start) / len(images) / len(self._nets)
            for job in jobs:
                found.append(embeddings[: len(job.images)])
                embeddings = embeddings[len(job.images) :]
        except Exception as error:  # of the net; every request of the batch is told
            found = [error for _ in jobs]
        self._batched(len(images))
        self._tell(jobs, found)

    def _tell(self, jobs: Sequence[_Job], found: Sequence[Vectors | Exception | None]) -> None:
        # At the end nobody may be there any more.
        if not jobs[0].loop.is_closed():
            jobs[0].loop.call_soon_threadsafe(self._answer, jobs, found)

    def _answer(self, jobs: Sequence[_Job], found: Sequence[Vectors | Exception | None]) -> None:
        for job, result in zip(jobs, found, strict=True):
            self._left(len(job.images))
            if job.done.cancelled() or result is None:
                continue
            if isinstance(result, Exception):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)


def _give_memory_back() -> None:
    """Give the kernel what is free: the net's speed wants it kept, but a few large images may have left a lot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def _use_threads(count: int) -> None:
    """Give this thread's torch so many threads of its own, FAISS one."""
    # Asked once, torch remembers the thread; only then does the number stay what is set here, whatever others set.
    torch.get_num_threads()
    torch.set_num_threads(count)
    faiss.omp_set_num_threads(1)

"""Embedding for many requests at once: threads decode images, and workers run the model on batches of them."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import faiss
import torch
from pydantic import Field
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from deeprank.cpu import num_cores
from deeprank.data.image_inputs import convert_each
from deeprank.memory import keep_freed_memory
from deeprank.registry.searcher import Searcher, Vectors
from deeprank.serving.batch_queue import Admission, BatchQueue, EmbedJob
from deeprank.serving.errors import RequestTimeoutError
from deeprank.settings import Settings

MAX_DEFAULT_WORKERS = 4
P = ParamSpec("P")
T = TypeVar("T")


def _default_num_workers() -> int:
    return 1 if torch.accelerator.is_available() else min(num_cores(), MAX_DEFAULT_WORKERS)


class BatchSettings(Settings):
    """How requests share the CPU cores.

    Attributes:
        num_workers: threads that run the model, each on its share of the cores: two workers on one core each embed more images
            per second than one worker on two cores.
        max_batch_size: images in one batch.
        max_wait_ms: milliseconds that a worker waits for images that are being decoded.
        num_decoders: threads that decode images and search the index.
        max_queue_size: images that may wait or be in progress; a request beyond that gets status 429.
        timeout_s: seconds until a request without a result gets status 503.

    """

    num_workers: int = Field(default_factory=_default_num_workers, ge=1)
    max_batch_size: int = Field(16, ge=1)
    max_wait_ms: float = Field(3.0, ge=0)
    num_decoders: int = Field(default_factory=num_cores, ge=1)
    max_queue_size: int = Field(128, ge=1)
    timeout_s: float = Field(20.0, gt=0)


class Batcher:
    """Embeds images of many requests in common batches.

    Args:
        settings: threads, batch size and limits.
        preprocess: turns the bytes of an image file into the model's input; runs on a decoder thread and may raise DataError.
        on_batch: called with the size of each batch.

    Attributes:
        admission: count and limit of the images in the queue.

    """

    def __init__(
        self,
        settings: BatchSettings,
        preprocess: Callable[[Searcher, bytes], Tensor] = Searcher.preprocess,
        on_batch: Callable[[int], object] = int,
    ) -> None:
        self.settings, self._preprocess, self._on_batch = settings, preprocess, on_batch
        keep_freed_memory()
        # Limits the whole process: a search multiplies a single query with one matrix.
        threadpool_limits(1, user_api="blas")
        self.admission = Admission(settings.max_queue_size)
        self._queue = BatchQueue(settings.max_batch_size, settings.max_wait_ms / 1000)
        self._decoders = ThreadPoolExecutor(settings.num_decoders, "decode", initializer=_set_num_threads, initargs=(1,))
        num_threads = max(1, num_cores() // settings.num_workers)
        self._workers = [
            threading.Thread(target=self._run_worker, args=(num_threads,), name=f"worker-{number}", daemon=True)
            for number in range(settings.num_workers)
        ]
        for worker in self._workers:
            worker.start()

    async def embed(self, searcher: Searcher, images: Sequence[bytes]) -> Vectors:
        """Return the embeddings (n, d) of image files.

        Args:
            searcher: the release that embeds them.
            images: bytes of the image files.

        Raises:
            QueueFullError: the queue is full.
            RequestTimeoutError: there was no result within the time limit.
            DataError: an image cannot be read.

        """
        loop = asyncio.get_running_loop()
        job = EmbedJob(searcher, images, loop.create_future(), loop)
        self.admission.admit(len(images))
        self._queue.start_decoding()
        self._decoders.submit(self._decode_images, job)
        return await self._within_timeout(job.result)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of a function that runs on a decoder thread.

        Raises:
            QueueFullError: the queue is full.
            RequestTimeoutError: there was no result within the time limit.
            Exception: any exception of the function.

        """
        self.admission.admit(1)
        try:
            return await self.run_admitted(function, *args, **kwargs)
        finally:
            self.admission.release(1)

    async def run_admitted(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the same as `run` for a request that is already admitted, so that its work is not refused halfway."""
        return await self._within_timeout(asyncio.wrap_future(self._decoders.submit(function, *args, **kwargs)))

    def close(self) -> None:
        """Finish the jobs in the queue, then end the threads."""
        self._decoders.shutdown(wait=True)
        self._queue.close()
        for worker in self._workers:
            worker.join()

    async def _within_timeout(self, result: "asyncio.Future[T]") -> T:
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await result
        except TimeoutError:
            raise RequestTimeoutError(f"no result within {self.settings.timeout_s:g} s: the service is overloaded") from None

    def _decode_images(self, job: EmbedJob) -> None:
        error: Exception | None = None
        try:
            inputs: list[Tensor] = []
            for image in convert_each(job.images, partial(self._preprocess, job.searcher)):
                # The client is gone.
                if job.result.cancelled():
                    break
                inputs.append(image)
            else:
                job.inputs = inputs
        except Exception as decode_error:  # any failure is the result of this request only
            error = decode_error
        self._queue.finish_decoding(job)
        if not job.inputs:
            self._send_results([job], [error])

    def _run_worker(self, num_threads: int) -> None:
        _set_num_threads(num_threads)
        while not self._queue.exhausted:
            jobs = self._queue.next_batch()
            if jobs:
                self._forward(jobs)

    def _forward(self, jobs: list[EmbedJob]) -> None:
        inputs = [image for job in jobs for image in job.inputs]
        results: list[Vectors | Exception | None] = []
        start = time.perf_counter()
        try:
            embeddings = jobs[0].searcher.forward(torch.stack(inputs))
            self.admission.seconds_per_image = (time.perf_counter() - start) / len(inputs) / len(self._workers)
            for job in jobs:
                results.append(embeddings[: len(job.images)])
                embeddings = embeddings[len(job.images) :]
        except Exception as error:  # a failure of the model is the result of every request in the batch
            results = [error for _ in jobs]
        self._on_batch(len(inputs))
        self._send_results(jobs, results)

    def _send_results(self, jobs: Sequence[EmbedJob], results: Sequence[Vectors | Exception | None]) -> None:
        # At shutdown the event loop may already be closed.
        if not jobs[0].loop.is_closed():
            jobs[0].loop.call_soon_threadsafe(self._set_results, jobs, results)

    def _set_results(self, jobs: Sequence[EmbedJob], results: Sequence[Vectors | Exception | None]) -> None:
        for job, result in zip(jobs, results, strict=True):
            self.admission.release(len(job.images))
            if job.result.cancelled() or result is None:
                continue
            if isinstance(result, Exception):
                job.result.set_exception(result)
            else:
                job.result.set_result(result)


def _set_num_threads(count: int) -> None:
    """Set the number of threads that torch uses for work of this thread, and one thread for FAISS."""
    # torch registers a thread on its first query; only after that is the number independent of other threads.
    torch.get_num_threads()
    torch.set_num_threads(count)
    faiss.omp_set_num_threads(1)

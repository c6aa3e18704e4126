"""The queue between requests and the model: admission of images, and batches of decoded images."""

import asyncio
import ctypes
import math
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from deeprank.registry.searcher import Searcher, Vectors
from deeprank.serving.errors import QueueFullError

# Free memory is returned to the kernel after this time without work.
IDLE_S = 5.0
# Assumed until the first batch is measured.
INITIAL_SECONDS_PER_IMAGE = 0.02


@dataclass(eq=False)
class EmbedJob:
    """The images of one request.

    Attributes:
        searcher: the release that embeds them.
        images: bytes of the image files.
        result: future of the embeddings (n, d).
        loop: event loop of `result`.
        inputs: the model's inputs (3, size, size), one per image; empty until all images are decoded.

    """

    searcher: Searcher
    images: Sequence[bytes]
    result: "asyncio.Future[Vectors]"
    loop: asyncio.AbstractEventLoop
    inputs: list[Tensor] = field(default_factory=list)


class Admission:
    """Counts the images that wait or are in progress, and refuses requests beyond a limit.

    `admit` and `release` are called in the event loop's thread only.

    Attributes:
        max_queue_size: limit of `queue_size`.
        queue_size: images that wait or are in progress; other work counts as one image.
        seconds_per_image: time of one image in the last batch, divided by the number of workers.

    """

    def __init__(self, max_queue_size: int) -> None:
        self.max_queue_size = max_queue_size
        self.queue_size = 0
        self.seconds_per_image = INITIAL_SECONDS_PER_IMAGE

    def admit(self, count: int) -> None:
        """Add images to the queue.

        Raises:
            QueueFullError: the queue would exceed its limit.

        """
        if self.queue_size + count > self.max_queue_size:
            raise QueueFullError(max(1, math.ceil(self.queue_size * self.seconds_per_image)))
        self.queue_size += count

    def release(self, count: int) -> None:
        """Remove images from the queue."""
        self.queue_size -= count


class BatchQueue:
    """A thread-safe queue that groups decoded jobs into batches.

    Args:
        max_batch_size: images in one batch; a job with more images is a batch of its own.
        max_wait_s: how long a batch waits for images that are being decoded.

    """

    def __init__(self, max_batch_size: int, max_wait_s: float) -> None:
        self._max_batch_size, self._max_wait_s = max_batch_size, max_wait_s
        self._jobs: deque[EmbedJob] = deque()
        self._changed = threading.Condition()
        self._num_decoding = 0
        self._worked_since_trim = False
        self._closed = False

    @property
    def exhausted(self) -> bool:
        """Whether the queue is closed and empty."""
        return self._closed and not self._jobs

    def start_decoding(self) -> None:
        """Announce a job whose images are being decoded."""
        with self._changed:
            self._num_decoding += 1

    def finish_decoding(self, job: EmbedJob) -> None:
        """Add an announced job to the queue; a job without inputs is only counted as finished."""
        with self._changed:
            self._num_decoding -= 1
            self._worked_since_trim = True
            if job.inputs:
                self._jobs.append(job)
            self._changed.notify()

    def next_batch(self) -> list[EmbedJob]:
        """Wait for jobs; return jobs of one release that form a batch, or an empty list if there are none."""
        with self._changed:
            idle = not self._changed.wait_for(lambda: self._jobs or self._closed, IDLE_S)
            trim = idle and self._worked_since_trim and not self._num_decoding
            self._worked_since_trim = self._worked_since_trim and not trim
        if trim:
            _return_free_memory()
            return []
        with self._changed:
            self._changed.wait_for(
                lambda: not self._num_decoding or len(self._jobs) >= self._max_batch_size or self._closed, self._max_wait_s
            )
            batch = self._pop_batch()
            if self._jobs:
                self._changed.notify()
            return batch

    def close(self) -> None:
        """Let `next_batch` return at once; jobs in the queue are still returned."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pop_batch(self) -> list[EmbedJob]:
        batch: list[EmbedJob] = []
        size = 0
        while self._jobs:
            job = self._jobs[0]
            size += len(job.images)
            if batch and (size > self._max_batch_size or job.searcher is not batch[0].searcher):
                break
            batch.append(self._jobs.popleft())
        return batch


def _return_free_memory() -> None:
    """Return free memory to the kernel; freed memory is otherwise kept for speed, and large images can leave a lot of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)

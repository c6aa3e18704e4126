"""Embedding many images: decoding on threads runs ahead of the net, so that the net never waits."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deeprank.data.catalogue import Catalogue
from deeprank.models.embedding_model import Embedder
from deeprank.models.memory import keep_freed_memory
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import track

BATCH = 64
AHEAD = 3


def device() -> torch.device:
    """Return the accelerator where there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def in_background(jobs: Sequence[Callable[[], Tensor]], ahead: int = AHEAD) -> Iterator[Tensor]:
    """Run jobs in order on one background thread, at most `ahead` results waiting; Lance and decoders release the GIL."""
    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def embed_jpegs(model: Embedder, preprocessing: Preprocessing, jpegs: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Embed a few stored images; returns (n, d) float32 rows of unit length."""
    return forward(model, torch.stack([preprocessing(jpeg) for jpeg in jpegs]))


def embed_catalogue(
    model: Embedder,
    preprocessing: Preprocessing,
    catalogue: Catalogue,
    rows: npt.NDArray[np.int64],
    progress: str | None = None,
) -> npt.NDArray[np.float32]:
    """Embed rows of a catalogue's frame; returns (len(rows), d) float32 of unit length.

    Args:
        net, preprocessing: what embeds.
        catalogue: where the images are.
        rows: indices into `catalogue.frame`.
        progress: shown before a progress bar; None for no bar.

    """
    out = np.empty((len(rows), model.embedding_dim), dtype=np.float32)
    starts = range(0, len(rows), BATCH)
    steps = zip(starts, embed_batches(model, preprocessing, catalogue, rows), strict=True)
    for start, found in track(steps, description=progress, total=len(starts)) if progress else steps:
        out[start : start + BATCH] = found
    return out


def embed_batches(
    model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, rows: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[np.float32]]:
    """Embed rows of a catalogue's frame, BATCH after BATCH; yields (n, d) float32 of unit length, in order."""
    keep_freed_memory()
    model = model.to(device()).to(memory_format=torch.channels_last)
    with ThreadPoolExecutor(os.cpu_count()) as decoders:

        def load(start: int) -> Callable[[], Tensor]:
            return lambda: torch.stack(list(decoders.map(preprocessing, catalogue.images(rows[start : start + BATCH]))))

        for images in in_background([load(start) for start in range(0, len(rows), BATCH)]):
            yield forward(model, images)


@torch.inference_mode()
def forward(model: Embedder, images: Tensor) -> npt.NDArray[np.float32]:
    """Return the embeddings (n, d) float32 of unit length of a batch, uint8 (n, 3, s, s)."""
    model.eval()
    # Float32 throughout, convolutions on a GPU too: a distance is the same to 1e-5 alone and in a batch, kept and computed anew.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found: npt.NDArray[np.float32] = model(images.to(next(model.parameters()).device)).cpu().numpy()
    return found

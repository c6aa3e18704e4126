"""Embedding of many images; threads decode the next images while the model embeds."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deeprank.cpu import num_cores
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ConfigError
from deeprank.memory import keep_freed_memory
from deeprank.models.embedding_model import Embedder
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import track
from deeprank.row_numbers import CatalogueRows

# On a CPU, 16 images are a tenth faster than 64, and take 1 GB less at 256 px; an accelerator is faster with more.
BATCH_SIZE = 64 if torch.accelerator.is_available() else 16
MAX_PREFETCHED = 3


def device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def require_gpus(count: int) -> None:
    """Check that this process sees the GPUs that were asked for.

    Raises:
        ConfigError: it sees fewer.

    """
    num_gpus = torch.cuda.device_count()
    if num_gpus < count:
        raise ConfigError(
            f"this step asks for {count} GPUs (resources.gpu_count) and sees {num_gpus}: PyTorch is {torch.__version__}, CUDA "
            f"{torch.version.cuda or 'not built in'}; build the image with CUDA, or ask for no GPU"
        )


def run_in_background(jobs: Sequence[Callable[[], Tensor]], max_prefetched: int = MAX_PREFETCHED) -> Iterator[Tensor]:
    """Run jobs on one background thread and yield their results in order.

    Lance and the decoders release the GIL, so that a job runs beside the caller.

    Args:
        jobs: to run.
        max_prefetched: number of results that may be ready before they are used.

    """
    pending: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) > max_prefetched:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def embed_catalogue(
    model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, rows: CatalogueRows, progress: str | None = None
) -> npt.NDArray[np.float32]:
    """Return the embeddings of images of a catalogue, float32 (len(rows), d) of unit length, in the order of `rows`.

    Args:
        model, preprocessing: that embed the images.
        catalogue: that holds the images.
        rows: of the images in `catalogue.frame`.
        progress: text before the progress bar; None: no progress bar.

    """
    embeddings = np.empty((len(rows), model.embedding_dim), dtype=np.float32)
    starts = range(0, len(rows), BATCH_SIZE)
    batches = zip(starts, embed_batches(model, preprocessing, catalogue, rows), strict=True)
    for start, batch in track(batches, description=progress, total=len(starts)) if progress else batches:
        embeddings[start : start + BATCH_SIZE] = batch
    return embeddings


def embed_batches(
    model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, rows: CatalogueRows
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the embeddings of BATCH_SIZE images at a time, float32 (n, d) of unit length, in the order of `rows`."""
    keep_freed_memory()
    model = model.to(device()).to(memory_format=torch.channels_last)
    with ThreadPoolExecutor(num_cores()) as decoders:

        def load(start: int) -> Callable[[], Tensor]:
            return lambda: torch.stack(list(decoders.map(preprocessing, catalogue.read_jpegs(rows[start : start + BATCH_SIZE]))))

        for images in run_in_background([load(start) for start in range(0, len(rows), BATCH_SIZE)]):
            yield forward(model, images)


@torch.inference_mode()
def forward(model: Embedder, images: Tensor) -> npt.NDArray[np.float32]:
    """Return the embeddings of a batch, uint8 (n, 3, s, s), as float32 (n, d) of unit length; sets evaluation mode."""
    model.eval()
    # No TF32, also in convolutions on a GPU: distances agree to 1e-5 alone and in a batch, stored and computed again.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        embeddings: npt.NDArray[np.float32] = model(images.to(next(model.parameters()).device)).cpu().numpy()
    return embeddings

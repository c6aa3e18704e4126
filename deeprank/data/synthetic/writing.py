"""Images as files, drawn by several processes where there are many."""

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path

from rich.progress import track

from deeprank.data.synthetic.products import label_path
from deeprank.data.synthetic.scenes import render
from deeprank.errors import DataError

POOL_FROM = 500  # images above which starting processes pays
CHUNK = 50  # images that a process draws at a time


def _write_one(folder: Path, seed: int, size: int, which: tuple[int, int]) -> None:
    """Write the image of a class index and an image index."""
    place = folder.joinpath(*label_path(which[0]))
    place.mkdir(parents=True, exist_ok=True)
    quality = random.Random(f"{seed}/{which[0]}/{which[1]}/jpeg").randint(60, 95)
    render(*which, seed, size).save(place / f"{which[1]:03d}.jpg", quality=quality)


def write_synthetic(folder: Path, classes: int = 36, images: int = 40, seed: int = 0, size: int = 256, *, progress: bool = False) -> int:
    """Write `images` images of each of `classes` products as folder/group/kind/variant/nnn.jpg; return how many files.

    Above POOL_FROM images several processes draw: a script that calls this then needs the usual __main__ guard. Files of the
    same names are overwritten. Raises DataError if a number is too small.
    """
    for name, value, least in (("classes", classes, 1), ("images", images, 1), ("size", size, 32)):
        if value < least:
            raise DataError(f"{name} must be {least} or more, not {value}")
    write, jobs, total = partial(_write_one, folder, seed, size), product(range(classes), range(images)), classes * images
    workers: AbstractContextManager[ProcessPoolExecutor | None] = nullcontext()
    if total > POOL_FROM:  # spawned, not forked: threads of torch may be running in the caller
        workers = ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))
    with workers as pool:
        written = pool.map(write, jobs, chunksize=CHUNK) if pool else map(write, jobs)
        for _ in track(written, "drawing images", total, transient=True, disable=not progress):
            pass
    return total

"""Write synthetic images as files, in several processes where there are many."""

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path

from deeprank.data.synthetic.products import label_path
from deeprank.data.synthetic.scenes import draw_image
from deeprank.errors import DataError
from deeprank.reporting import track

MAX_IMAGES_IN_ONE_PROCESS = 500  # with more images, several processes are faster despite the time to start them
IMAGES_PER_TASK = 50


def _write_image(folder: Path, seed: int, size: int, indices: tuple[int, int]) -> None:
    """Write the image of a class index and an image index."""
    class_index, image_index = indices
    class_folder = folder.joinpath(*label_path(class_index))
    class_folder.mkdir(parents=True, exist_ok=True)
    quality = random.Random(f"{seed}/{class_index}/{image_index}/jpeg").randint(60, 95)
    draw_image(class_index, image_index, seed, size).save(class_folder / f"{image_index:03d}.jpg", quality=quality)


def write_synthetic(folder: Path, classes: int = 36, images: int = 40, seed: int = 0, size: int = 256, *, progress: bool = False) -> int:
    """Write synthetic images as folder/category/kind/variant/nnn.jpg, and return the number of files.

    More than MAX_IMAGES_IN_ONE_PROCESS images are drawn by several processes; a script that calls this needs the usual
    `if __name__ == "__main__"` guard. Files of the same names are overwritten.

    Args:
        folder: where to.
        classes: number of classes, at least 1.
        images: number of images per class, at least 1.
        seed: random seed.
        size: shorter side in pixels, at least 32.
        progress: whether to show a progress bar.

    Raises:
        DataError: a number is too small.

    """
    for name, value, minimum in (("classes", classes, 1), ("images", images, 1), ("size", size, 32)):
        if value < minimum:
            raise DataError(f"{name} must be {minimum} or more, not {value}")
    write, tasks, total = partial(_write_image, folder, seed, size), product(range(classes), range(images)), classes * images
    workers: AbstractContextManager[ProcessPoolExecutor | None] = nullcontext()
    if total > MAX_IMAGES_IN_ONE_PROCESS:
        # Processes are spawned, not forked, because the caller may run threads of torch.
        workers = ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))
    with workers as pool:
        written = pool.map(write, tasks, chunksize=IMAGES_PER_TASK) if pool else map(write, tasks)
        for _ in track(written, "drawing images", total) if progress else written:
            pass
    return total

"""Speed of embedding a catalogue in images/s, relative to the bare forward pass of the same model on tensors in memory.

The model is that of the default settings before training, at the largest stored image size. Both sides run alternately in one
process, on the same images with the same batch size.

bare forward    uint8 tensors in memory to embeddings; nothing is read or decoded.
catalogue       reading from the Lance table, decoding, resizing, forward pass.
stored          the same, and writing the embeddings to their table in chunks.
all stored      the same call again: the table is read, nothing is embedded.
some new        the table has all images but some (--new). In seconds, beside those of the bare forward pass on them.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from peers import Spec, create_parser, page, prepare, screen, spread, synchronized_time
from rich.table import Table

from deeprank.data.catalogue import Catalogue
from deeprank.memory import keep_freed_memory
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, ModelSettings, create_model
from deeprank.models.embedding_table import catalogue_embeddings, embedding_table_uri
from deeprank.models.inference import BATCH_SIZE, device, embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.row_numbers import CatalogueRows

# Batches in memory, which the bare forward pass uses in turn.
NUM_BATCHES = 8
MIN_RATIO = 0.9


@torch.inference_mode()
def embed_tensors(model: Embedder, batches: list[torch.Tensor], count: int) -> None:
    """Embed `count` images from tensors, in batches of the same sizes as those of a catalogue."""
    for number, start in enumerate(range(0, count, BATCH_SIZE)):
        model(batches[number % len(batches)][: count - start].to(device())).cpu().numpy()


def seconds(job: Callable[[], object]) -> float:
    """Return how long a job takes."""
    start = synchronized_time()
    job()
    return synchronized_time() - start


def run_turns(
    model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, rows: CatalogueRows, repeats: int
) -> list[tuple[float, float]]:
    """Return the seconds of bare forward pass and catalogue in each turn; they start alternately."""
    jpegs = catalogue.read_jpegs(rows[: NUM_BATCHES * BATCH_SIZE])
    batches = list(torch.stack([preprocessing(jpeg) for jpeg in jpegs]).split(BATCH_SIZE))
    jobs: list[Callable[[], object]] = [
        lambda: embed_tensors(model, batches, len(rows)),
        lambda: embed_catalogue(model, preprocessing, catalogue, rows),
    ]
    # Warm-up: threads start, memory is touched for the first time.
    embed_tensors(model, batches, 2 * BATCH_SIZE)
    embed_catalogue(model, preprocessing, catalogue, CatalogueRows(rows[: 2 * BATCH_SIZE]))
    turns = []
    for number in range(repeats):
        screen.print(f"turn {number + 1} of {repeats}")
        order = (0, 1) if number % 2 == 0 else (1, 0)
        times = {job: seconds(jobs[job]) for job in order}
        turns.append((times[0], times[1]))
    return turns


def measure_table(bundle: Bundle, catalogue: Catalogue, rows: CatalogueRows, new: int) -> dict[str, float]:
    """Return the seconds of embedding into an empty table, with all images stored, and with some new images."""
    empty = seconds(lambda: catalogue_embeddings(bundle, catalogue, rows))
    complete = min(seconds(lambda: catalogue_embeddings(bundle, catalogue, rows)) for _ in range(3))
    shutil.rmtree(embedding_table_uri(bundle, catalogue))
    catalogue_embeddings(bundle, catalogue, CatalogueRows(rows[new:]))
    some_new = seconds(lambda: catalogue_embeddings(bundle, catalogue, rows))
    load = min(seconds(bundle.load) for _ in range(3))
    return {"stored": empty, "all_stored": complete, "some_new": some_new, "load": load}


def measure(data: str | None, images: int | None, size: int, new: int, repeats: int) -> Spec:
    """Measure both sides alternately; return speeds and ratios."""
    keep_freed_memory()
    settings, preprocessing = ModelSettings(), Preprocessing(size=size)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(folder, data)
        catalogue = Catalogue(prepared["uri"], prepared["version"])
        rows = CatalogueRows(np.random.default_rng(0).permutation(len(catalogue.frame))[:images])
        model = create_model(settings).eval()
        bundle = Bundle.save(Path(folder, "bundle"), model, settings, preprocessing, {})
        model = model.to(device()).to(memory_format=torch.channels_last)
        turns = run_turns(model, preprocessing, catalogue, rows, repeats)
        new = min(new, len(rows) - 1)
        table = measure_table(bundle, catalogue, rows, new)
    speed = len(rows) / median(bare for bare, _ in turns)
    return {
        "images": len(rows),
        "size": size,
        "batch_size": BATCH_SIZE,
        "threads": torch.get_num_threads(),
        "bare": speed,
        "catalogue": len(rows) / median(full for _, full in turns),
        "ratio": spread([bare / full for bare, full in turns]),
        "stored": len(rows) / (table["stored"] - table["load"]),
        "all_stored": {"seconds": table["all_stored"], "load": table["load"]},
        "some_new": {"images": new, "seconds": table["some_new"], "bare": new / speed},
    }


def show(result: Spec) -> None:
    """Print the table."""
    images, bare = result["images"], result["bare"]
    title = f"{images:,} images at {result['size']} px, batches of {result['batch_size']}, {result['threads']} threads"
    table = Table("", "images/s", "relative to the bare forward pass", "seconds", title=title)
    ratio, complete, new = result["ratio"], result["all_stored"], result["some_new"]
    table.add_row("bare forward", f"{bare:.1f}", "1", f"{images / bare:.1f}")
    share = f"{ratio['median']:.2f} ({ratio['low']:.2f} .. {ratio['high']:.2f}), required ≥ {MIN_RATIO}"
    table.add_row("catalogue", f"{result['catalogue']:.1f}", share, f"{images / result['catalogue']:.1f}")
    table.add_row("stored", f"{result['stored']:.1f}", f"{result['stored'] / bare:.2f}", f"{images / result['stored']:.1f}")
    load = f"loading the model {complete['load']:.2f}"
    table.add_row("all stored", f"{images / complete['seconds']:,.0f}", "", f"{complete['seconds']:.2f} ({load})")
    table.add_row(f"{new['images']} new", "", "", f"{new['seconds']:.2f} ({load}, bare forward {new['bare']:.2f})")
    page.print(table)


def main() -> None:
    """Measure; print speeds and the ratio."""
    parser = create_parser(__doc__, config=None)
    parser.add_argument("--images", type=int, help="number of images (default: all)")
    parser.add_argument("--size", type=int, default=256, help="pixels per side of the model's input (default: 256)")
    parser.add_argument("--new", type=int, default=100, help="images that the table does not have (default: 100)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")
    options = parser.parse_args()
    result = measure(options.data, options.images, options.size, options.new, options.repeats)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()

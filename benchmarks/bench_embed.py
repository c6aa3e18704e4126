"""Speed of embedding a catalogue, images/s: against the bare forward of the same net on tensors ready in memory.

The net is that of the default config before training, at the largest size an image is stored in: both sides do the same work
after training. They take turns in one process, on the same images and batch size.

bare forward    uint8 tensors in memory → embeddings; nothing is read or decoded.
catalogue       reading from the Lance table, decoding, resizing, forward.
kept            the same, and the embeddings written to their table in chunks.
all there       the same call again: the table is read, nothing is embedded.
some new        the table has all but so many images (--new). Seconds, and those of the bare forward on them.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from peers import Spec, now, page, prepare, screen
from rich.table import Table

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, ModelSettings, create_model
from deeprank.models.embedding_table import catalogue_embeddings, embedding_table_uri
from deeprank.models.inference import BATCH, device, embed_catalogue
from deeprank.models.memory import keep_freed_memory
from deeprank.models.preprocessing import Preprocessing

# Batches of images that stay in memory for the bare forward, which goes round among them.
READY = 8
WANTED = 0.9


@torch.inference_mode()
def bare(model: Embedder, ready: list[torch.Tensor], count: int) -> None:
    """Embed `count` images in full batches and a last one, as many as a catalogue's would be."""
    for number, start in enumerate(range(0, count, BATCH)):
        model(ready[number % len(ready)][: count - start].to(device())).cpu().numpy()


def seconds(job: Callable[[], object]) -> float:
    """Return how long a job takes."""
    start = now()
    job()
    return now() - start


def turns(model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, rows: np.ndarray, repeats: int) -> list[tuple[float, float]]:
    """Return the seconds of bare forward and catalogue in each turn; who goes first changes."""
    jpegs = catalogue.images(rows[: READY * BATCH])
    ready = list(torch.stack([preprocessing(jpeg) for jpeg in jpegs]).split(BATCH))
    jobs: list[Callable[[], object]] = [
        lambda: bare(model, ready, len(rows)),
        lambda: embed_catalogue(model, preprocessing, catalogue, rows),
    ]
    # Threads start, memory is touched for the first time.
    bare(model, ready, 2 * BATCH)
    embed_catalogue(model, preprocessing, catalogue, rows[: 2 * BATCH])
    found = []
    for number in range(repeats):
        screen.print(f"turn {number + 1} of {repeats}")
        order = (0, 1) if number % 2 == 0 else (1, 0)
        took = {which: seconds(jobs[which]) for which in order}
        found.append((took[0], took[1]))
    return found


def kept(bundle: Bundle, catalogue: Catalogue, rows: np.ndarray, new: int) -> dict[str, float]:
    """Return the seconds of embedding into an empty table, of all being there, and of so many being new."""
    first = seconds(lambda: catalogue_embeddings(bundle, catalogue, rows))
    there = min(seconds(lambda: catalogue_embeddings(bundle, catalogue, rows)) for _ in range(3))
    shutil.rmtree(embedding_table_uri(bundle, catalogue))
    catalogue_embeddings(bundle, catalogue, rows[new:])
    some = seconds(lambda: catalogue_embeddings(bundle, catalogue, rows))
    load = min(seconds(bundle.load) for _ in range(3))
    return {"kept": first, "all there": there, "some new": some, "load": load}


def measure(images: int | None, size: int, new: int, repeats: int) -> Spec:
    """Take turns; return speeds and ratios."""
    keep_freed_memory()
    settings, preprocessing = ModelSettings(), Preprocessing(size=size)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder)
        catalogue = Catalogue(data["uri"], data["version"])
        rows = np.random.default_rng(0).permutation(len(catalogue.frame))[:images]
        model = create_model(settings).eval()
        bundle = Bundle.save(Path(folder, "bundle"), model, settings, preprocessing, {})
        model = model.to(device()).to(memory_format=torch.channels_last)
        took = turns(model, preprocessing, catalogue, rows, repeats)
        new = min(new, len(rows) - 1)
        table = kept(bundle, catalogue, rows, new)
    speed = len(rows) / median(took[0] for took in took)
    return {
        "images": len(rows),
        "size": size,
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "bare": speed,
        "catalogue": len(rows) / median(one[1] for one in took),
        "ratio": spread([one[0] / one[1] for one in took]),
        "kept": len(rows) / (table["kept"] - table["load"]),
        "all_there": {"seconds": table["all there"], "load": table["load"]},
        "some_new": {"images": new, "seconds": table["some new"], "bare": new / speed},
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median, lowest and highest."""
    return {"median": round(median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def show(found: Spec) -> None:
    """Print the table."""
    title = f"{found['images']:,} images at {found['size']} px, batches of {found['batch']}, {found['threads']} threads"
    table = Table("", "images/s", "of the bare forward", "seconds", title=title)
    ratio, there, new = found["ratio"], found["all_there"], found["some_new"]
    table.add_row("bare forward", f"{found['bare']:.1f}", "1", f"{found['images'] / found['bare']:.1f}")
    share = f"{ratio['median']:.2f} ({ratio['low']:.2f} .. {ratio['high']:.2f}), wanted ≥ {WANTED}"
    table.add_row("catalogue", f"{found['catalogue']:.1f}", share, f"{found['images'] / found['catalogue']:.1f}")
    table.add_row("kept", f"{found['kept']:.1f}", f"{found['kept'] / found['bare']:.2f}", f"{found['images'] / found['kept']:.1f}")
    table.add_row(
        "all there", f"{found['images'] / there['seconds']:,.0f}", "", f"{there['seconds']:.2f} (loading the net {there['load']:.2f})"
    )
    shown = f"{new['seconds']:.2f} (loading the net {there['load']:.2f}, bare forward {new['bare']:.2f})"
    table.add_row(f"{new['images']} new", "", "", shown)
    page.print(table)


def main() -> None:
    """Measure, print speeds and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="how many of the images (default: all)")
    parser.add_argument("--size", type=int, default=256, help="pixels of the square that the net sees (default: 256)")
    parser.add_argument("--new", type=int, default=100, help="images that the table lacks (default: 100)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure(options.images, options.size, options.new, options.repeats)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()

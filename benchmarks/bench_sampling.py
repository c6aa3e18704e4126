"""Triplets of many images by each sampler, against a plain Python loop: seconds and peak memory, each in a fresh process."""

import argparse
import json
import random
import resource
import subprocess
import sys
import time

import pandas as pd
from rich.console import Console
from rich.table import Table

from deeprank.triplets.sampling import SampleSettings, sample_triplets

METHODS = ("uniform", "relevance", "buffer")
POSITIVES, NEGATIVES = 2, 5


def images(count: int) -> pd.DataFrame:
    """Return a frame of images in 20 categories of 10 classes of 10 classes."""
    labels = [f"top{i % 20:02d}/middle{i // 20 % 10}/leaf{i // 200 % 10}" for i in range(count)]
    return pd.DataFrame({"label": labels, "split": "train"})


def loop(labels: list[str], queries: int) -> int:
    """Draw the triplets of some images as the seed describes it: list the class folder and all others, then choose."""
    names, chance, drawn = [f"{label}/{i}.jpg" for i, label in enumerate(labels)], random.Random(0), []
    for query in chance.sample(range(len(labels)), queries):
        same = [name for name, label in zip(names, labels, strict=True) if label == labels[query] and name != names[query]]
        other = [name for name, label in zip(names, labels, strict=True) if label != labels[query]]
        for positive in chance.sample(same, POSITIVES):
            drawn += [(names[query], positive, chance.choice(other)) for _ in range(NEGATIVES)]
    return len(drawn)


def measure(method: str, count: int, queries: int) -> dict[str, float]:
    """Return seconds, and MiB at the peak and above what imports and images take."""
    frame = images(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if method == "loop":
        triplets = loop(frame["label"].tolist(), queries)
    else:
        wanted = SampleSettings(method=method, positives=POSITIVES, negatives=NEGATIVES)
        triplets = len(sample_triplets(frame, wanted).frame)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"triplets": triplets, "seconds": seconds, "peak_mib": peak / 1024, "above_mib": (peak - before) / 1024}


def main() -> None:
    """Measure each in a process of its own, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200, help="images that the loop is timed on; the rest is scaled")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        print(json.dumps(measure(options.method, options.images, options.queries)))
        return
    shared = [sys.executable, __file__, "--images", str(options.images), "--queries", str(options.queries)]
    found = {
        method: json.loads(subprocess.run([*shared, "--method", method], check=True, capture_output=True, text=True).stdout)
        for method in (*METHODS, "loop")
    }
    found["loop"]["measured_triplets"] = found["loop"]["triplets"]
    found["loop"]["triplets"] = found["uniform"]["triplets"]
    found["loop"]["seconds"] *= found["loop"]["triplets"] / found["loop"]["measured_triplets"]
    for result in found.values():
        result["times_faster"] = found["loop"]["seconds"] / result["seconds"]
    if options.json:
        print(json.dumps({"images": options.images, "methods": found}))
        return
    title = f"{found['uniform']['triplets']:,} triplets of {options.images:,} images"
    table = Table("sampler", *(["seconds", "peak MiB", "above imports MiB", "times faster"]), title=title)
    for method, result in found.items():
        name = f"loop (scaled from {result['measured_triplets']:,} triplets)" if method == "loop" else method
        figures = f"{result['seconds']:,.2f}", f"{result['peak_mib']:,.0f}", f"{result['above_mib']:,.0f}", f"{result['times_faster']:,.0f}"
        table.add_row(name, *figures)
    Console().print(table)


if __name__ == "__main__":
    main()

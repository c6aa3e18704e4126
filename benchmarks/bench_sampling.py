"""Time and peak memory of each triplet sampler, against a plain Python loop, each in a process of its own."""

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


def labeled_images(count: int) -> pd.DataFrame:
    """Return a frame of images in 20 categories of 10 classes of 10 classes."""
    labels = [f"top{i % 20:02d}/middle{i // 20 % 10}/leaf{i // 200 % 10}" for i in range(count)]
    return pd.DataFrame({"label": labels, "split": "train"})


def sample_in_loop(labels: list[str], num_queries: int) -> int:
    """Sample triplets as the original Keras scripts describe it, for some of the images; return how many."""
    names, rng, triplets = [f"{label}/{i}.jpg" for i, label in enumerate(labels)], random.Random(0), []
    for query in rng.sample(range(len(labels)), num_queries):
        same_class = [name for name, label in zip(names, labels, strict=True) if label == labels[query] and name != names[query]]
        other_classes = [name for name, label in zip(names, labels, strict=True) if label != labels[query]]
        for positive in rng.sample(same_class, POSITIVES):
            triplets += [(names[query], positive, rng.choice(other_classes)) for _ in range(NEGATIVES)]
    return len(triplets)


def measure(method: str, count: int, num_queries: int) -> dict[str, float]:
    """Return the number of triplets, the seconds, the peak in MiB, and the peak above imports and images in MiB."""
    frame = labeled_images(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if method == "loop":
        num_triplets = sample_in_loop(frame["label"].tolist(), num_queries)
    else:
        settings = SampleSettings(method=method, positives=POSITIVES, negatives=NEGATIVES)
        num_triplets = len(sample_triplets(frame, settings).frame)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"triplets": num_triplets, "seconds": seconds, "peak_mib": peak / 1024, "above_mib": (peak - before) / 1024}


def main() -> None:
    """Measure each method in a process of its own, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200, help="queries that the loop is timed on; its time is scaled to all images")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        print(json.dumps(measure(options.method, options.images, options.queries)))
        return
    command = [sys.executable, __file__, "--images", str(options.images), "--queries", str(options.queries)]
    results = {
        method: json.loads(subprocess.run([*command, "--method", method], check=True, capture_output=True, text=True).stdout)
        for method in (*METHODS, "loop")
    }
    results["loop"]["measured_triplets"] = results["loop"]["triplets"]
    results["loop"]["triplets"] = results["uniform"]["triplets"]
    results["loop"]["seconds"] *= results["loop"]["triplets"] / results["loop"]["measured_triplets"]
    for result in results.values():
        result["times_faster"] = results["loop"]["seconds"] / result["seconds"]
    if options.json:
        print(json.dumps({"images": options.images, "methods": results}))
        return
    print_table(results, options.images)


def print_table(results: dict[str, dict[str, float]], num_images: int) -> None:
    """Print the results by method."""
    title = f"{results['uniform']['triplets']:,} triplets of {num_images:,} images"
    table = Table("sampler", "seconds", "peak MiB", "above imports MiB", "times faster", title=title)
    for method, result in results.items():
        name = f"loop (scaled from {result['measured_triplets']:,} triplets)" if method == "loop" else method
        numbers = f"{result['seconds']:,.2f}", f"{result['peak_mib']:,.0f}", f"{result['above_mib']:,.0f}", f"{result['times_faster']:,.0f}"
        table.add_row(name, *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()

"""Evaluating many embeddings, every metric with its interval: seconds and peak memory, data and imports included, beside
pytorch-metric-learning's AccuracyCalculator at a size that it can do; each in a fresh process.

Embeddings are clustered: 20 categories of 10 coarse classes of 25 classes, of unit length. Ours computes all its metrics;
the peer precision@1 and mAP@R of one level, twice: of fine and of coarse classes.
"""  # noqa: D205

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from rich.console import Console
from rich.table import Table

from deeprank.evaluation.evaluation import evaluate
from deeprank.triplets.relevance import encode_hierarchy
from deeprank.triplets.sampling import SampleSettings, sample_triplets

CATEGORIES, COARSE, FINE = 20, 10, 25
LEVELS = {"fine": -1, "coarse": -2}
# Its names of recall@1 and average precision at R.
PEER = {"precision_at_1": "recall_at_1", "mean_average_precision_at_r": "map_at_r"}


def catalogue_embeddings(gallery: int, queries: int, embedding_dim: int) -> tuple[pd.DataFrame, Any]:
    """Return a frame, queries last, and embeddings: siblings lie nearer to each other than to other classes."""
    rng = np.random.default_rng(0)
    count, classes = gallery + queries, CATEGORIES * COARSE * FINE
    leaf = rng.integers(0, classes, count)
    names = np.array([f"top{i // COARSE // FINE:02d}/middle{i // FINE % COARSE}/leaf{i % FINE:02d}" for i in range(classes)])
    coarse = rng.standard_normal((CATEGORIES * COARSE, embedding_dim), dtype=np.float32)
    centers = np.repeat(coarse, FINE, axis=0) + 0.7 * rng.standard_normal((classes, embedding_dim), dtype=np.float32)
    points = rng.standard_normal((count, embedding_dim), dtype=np.float32)
    points *= 1.5
    points += centers[leaf]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return pd.DataFrame({"label": names[leaf], "group": np.arange(count)}), points


def measure(what: str, gallery: int, queries: int, embedding_dim: int) -> dict[str, Any]:
    """Return seconds by the clock and of the CPU, MiB at the peak, and the metrics that both sides have."""
    frame, embeddings = catalogue_embeddings(gallery, queries, embedding_dim)
    searched, asked = np.arange(gallery), np.arange(gallery, gallery + queries)
    triplets = asked[sample_triplets(frame.iloc[asked].assign(split="test"), SampleSettings()).frame.iloc[:, :3].to_numpy()]
    found: dict[str, float] = {}
    start, worked = time.perf_counter(), time.process_time()
    if what == "ours":
        metrics = evaluate(frame, embeddings, asked, searched, triplets).metrics
        found = {f"{level}.{name}": metrics[f"{level}.{name}"].value for level in LEVELS for name in PEER.values()}
    else:
        calculator = AccuracyCalculator(include=tuple(PEER), k="max_bin_count")
        codes = encode_hierarchy(frame["label"].tolist())
        for level, column in LEVELS.items():
            labels = codes[:, column]
            theirs = calculator.get_accuracy(embeddings[asked], labels[asked], embeddings[searched], labels[searched])
            found |= {f"{level}.{name}": theirs[key] for key, name in PEER.items()}
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - worked}
    return took | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "metrics": found}


def main() -> None:
    """Measure each in a process of its own, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gallery", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--peer-gallery", type=int, default=50_000, help="size at which both are measured")
    parser.add_argument("--peer-queries", type=int, default=2_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--what", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what:
        print(json.dumps(measure(options.what, options.gallery, options.queries, options.embedding_dim)))
        return

    def run(what: str, gallery: int, queries: int) -> dict[str, Any]:
        sizes = {"--what": what, "--gallery": gallery, "--queries": queries, "--dimensions": options.embedding_dim}
        command = [sys.executable, __file__, *(str(part) for pair in sizes.items() for part in pair)]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        return {"gallery": gallery, "queries": queries} | result

    large = run("ours", options.gallery, options.queries)
    ours, peer = (run(what, options.peer_gallery, options.peer_queries) for what in ("ours", "peer"))
    differences = {name: abs(value - peer["metrics"][name]) for name, value in ours["metrics"].items()}
    ratios = {"times_faster": peer["seconds"] / ours["seconds"], "times_less_memory": peer["peak_mib"] / ours["peak_mib"]}
    if options.json:
        print(json.dumps({"large": large, "ours": ours, "peer": peer, "largest_difference": max(differences.values())} | ratios))
        return
    title = f"Evaluating embeddings of {options.embedding_dim} dimensions; times faster and less memory at the peer's size"
    table = Table("", "gallery", "queries", "seconds", "CPU seconds", "peak MiB", "times faster", "times less memory", title=title)
    for name, one in {"ours": large, "ours, the peer's size": ours, "pytorch-metric-learning": peer}.items():
        used = [f"{one['seconds']:,.1f}", f"{one['cpu_seconds']:,.1f}", f"{one['peak_mib']:,.0f}"]
        figures = [f"{ratios['times_faster']:.2f}", f"{ratios['times_less_memory']:.2f}"] if one is ours else ["", ""]
        table.add_row(name, f"{one['gallery']:,}", f"{one['queries']:,}", *used, *figures)
    Console().print(table)
    Console().print(f"largest difference of recall@1 and mAP@R, fine and coarse: {max(differences.values()):.1e}")


if __name__ == "__main__":
    main()

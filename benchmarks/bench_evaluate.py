"""Evaluation of many embeddings: time and peak memory, compared with AccuracyCalculator of pytorch-metric-learning.

Every measurement runs in a process of its own, data and imports included. The embeddings are clustered: 20 categories of 10 coarse
classes of 25 classes, of unit length. Ours computes all metrics with their intervals; the peer computes precision@1 and mAP@R of one
level, so it runs twice, for fine and for coarse classes. The comparison is made at a size that the peer can process.
"""

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
from deeprank.row_numbers import CatalogueRows
from deeprank.triplets.relevance import encode_hierarchy
from deeprank.triplets.sampling import SampleSettings, sample_triplets

CATEGORIES, COARSE_PER_CATEGORY, FINE_PER_COARSE = 20, 10, 25
LEVEL_COLUMNS = {"fine": -1, "coarse": -2}
# The peer's names of recall@1 and average precision at R.
PEER_NAMES = {"precision_at_1": "recall_at_1", "mean_average_precision_at_r": "map_at_r"}


def clustered_embeddings(gallery: int, queries: int, embedding_dim: int) -> tuple[pd.DataFrame, Any]:
    """Return a frame with the queries last, and embeddings in which sibling classes are nearer to each other than other classes."""
    rng = np.random.default_rng(0)
    count, classes = gallery + queries, CATEGORIES * COARSE_PER_CATEGORY * FINE_PER_COARSE
    leaf = rng.integers(0, classes, count)
    names = np.array([_class_name(number) for number in range(classes)])
    coarse_centers = rng.standard_normal((CATEGORIES * COARSE_PER_CATEGORY, embedding_dim), dtype=np.float32)
    centers = np.repeat(coarse_centers, FINE_PER_COARSE, axis=0)
    centers = centers + 0.7 * rng.standard_normal((classes, embedding_dim), dtype=np.float32)
    points = rng.standard_normal((count, embedding_dim), dtype=np.float32)
    points *= 1.5
    points += centers[leaf]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return pd.DataFrame({"label": names[leaf], "duplicate_group": np.arange(count)}), points


def _class_name(number: int) -> str:
    coarse, fine = divmod(number, FINE_PER_COARSE)
    return f"top{coarse // COARSE_PER_CATEGORY:02d}/middle{coarse % COARSE_PER_CATEGORY}/leaf{fine:02d}"


def measure(side: str, gallery: int, queries: int, embedding_dim: int) -> dict[str, Any]:
    """Return wall-clock and CPU seconds, the peak memory in MiB, and the metrics that both sides compute."""
    frame, embeddings = clustered_embeddings(gallery, queries, embedding_dim)
    gallery_rows, query_rows = CatalogueRows(np.arange(gallery)), CatalogueRows(np.arange(gallery, gallery + queries))
    triplets = query_rows[sample_triplets(frame.iloc[query_rows].assign(split="test"), SampleSettings()).frame.iloc[:, :3].to_numpy()]
    values: dict[str, float] = {}
    start, cpu_start = time.perf_counter(), time.process_time()
    if side == "ours":
        metrics = evaluate(frame, embeddings, query_rows, gallery_rows, triplets).metrics
        values = {f"{level}.{name}": metrics[f"{level}.{name}"].value for level in LEVEL_COLUMNS for name in PEER_NAMES.values()}
    else:
        calculator = AccuracyCalculator(include=tuple(PEER_NAMES), k="max_bin_count")
        codes = encode_hierarchy(frame["label"].tolist())
        for level, column in LEVEL_COLUMNS.items():
            labels = codes[:, column]
            accuracy = calculator.get_accuracy(embeddings[query_rows], labels[query_rows], embeddings[gallery_rows], labels[gallery_rows])
            values |= {f"{level}.{name}": accuracy[peer_name] for peer_name, name in PEER_NAMES.items()}
    times = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
    return times | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "metrics": values}


def measure_in_process(side: str, gallery: int, queries: int, embedding_dim: int) -> dict[str, Any]:
    """Return `measure` of a new process."""
    sizes = {"--side": side, "--gallery": gallery, "--queries": queries, "--embedding-dim": embedding_dim}
    command = [sys.executable, __file__, *(str(word) for option in sizes.items() for word in option)]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {"gallery": gallery, "queries": queries} | result


def main() -> None:
    """Measure both sides and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gallery", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--peer-gallery", type=int, default=50_000, help="size at which both are measured")
    parser.add_argument("--peer-queries", type=int, default=2_000)
    parser.add_argument("--embedding-dim", type=int, default=128)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.gallery, options.queries, options.embedding_dim)))
        return
    large = measure_in_process("ours", options.gallery, options.queries, options.embedding_dim)
    ours, peer = (measure_in_process(side, options.peer_gallery, options.peer_queries, options.embedding_dim) for side in ("ours", "peer"))
    largest_difference = max(abs(value - peer["metrics"][name]) for name, value in ours["metrics"].items())
    ratios = {"times_faster": peer["seconds"] / ours["seconds"], "times_less_memory": peer["peak_mib"] / ours["peak_mib"]}
    if options.json:
        print(json.dumps({"large": large, "ours": ours, "peer": peer, "largest_difference": largest_difference} | ratios))
        return
    title = f"Evaluation of embeddings of {options.embedding_dim} dimensions; times faster and times less memory at the peer's size"
    table = Table("", "gallery", "queries", "seconds", "CPU seconds", "peak MiB", "times faster", "times less memory", title=title)
    for name, result in {"ours": large, "ours, at the peer's size": ours, "pytorch-metric-learning": peer}.items():
        cells = [f"{result['seconds']:,.1f}", f"{result['cpu_seconds']:,.1f}", f"{result['peak_mib']:,.0f}"]
        cells += [f"{ratios['times_faster']:.2f}", f"{ratios['times_less_memory']:.2f}"] if result is ours else ["", ""]
        table.add_row(name, f"{result['gallery']:,}", f"{result['queries']:,}", *cells)
    Console().print(table)
    Console().print(f"largest difference of recall@1 and mAP@R, fine and coarse: {largest_difference:.1e}")


if __name__ == "__main__":
    main()

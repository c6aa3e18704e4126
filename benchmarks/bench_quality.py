"""Quality after equal wall time: deeprank against pytorch-metric-learning loops (see peers.py), several seeds, one evaluation.

For each seed deeprank trains first, with the number of epochs that fits into the minutes given (estimated from a short training; if
it takes longer, it is repeated with one epoch fewer). Then each peer trains for the wall time of deeprank, with start, validation
and saving, plus the time of its ingest. Each is evaluated at its own image size (peers: trained on 160 px, evaluated at 192 px);
queries are the test split, the gallery is the train split. No choice is made on the test split.

With --results every run is saved when it ends and is not repeated, so that an interrupted benchmark continues. The file depends on
settings and images, not on the code: use a new file for new code.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from peers import METRICS, Spec, create_parser, fit_deeprank, fit_pml, page, prepare, run_in_process, screen, train_section
from rich.table import Table
from scipy.stats import t as student

from deeprank.data.catalogue import Catalogue
from deeprank.training.settings import TrainSettings

PEERS: dict[str, Spec] = {
    "pml-supcon": {},
    "pml-semihard": {"miner": True},
    # The first peer with options that its user would have to find out.
    "pml-supcon-tuned": {"cosine": True, "memory": True},
}


def estimate_epochs(seconds: float, data: Spec, settings: Spec) -> Spec:
    """Return how many epochs fit into some seconds, from a training of one epoch per image size on a few images."""
    num_sizes = len(settings["train_image_sizes"])
    subset = (settings["classes_per_batch"], 12)
    short = run_in_process(fit_deeprank, data=data, settings=settings | {"epochs": num_sizes}, subset=subset, measure=False)
    split = Catalogue(data["uri"], data["version"]).frame["split"]
    train, val = int((split == "train").sum()), int((split == "val").sum())
    images_per_epoch = short["images"] / num_sizes
    # Start, end and the validations of the short training; taken for those of the long one.
    overhead = max(0.0, short["wall_time"] - sum(images_per_epoch / speed for speed in short["speeds"]))
    step = sum(1 / speed for speed in short["speeds"]) / num_sizes
    # Embedding an image takes less than half as long as a step: the train split before the training, val after each epoch.
    return {"epochs": max(1, int((seconds - overhead - train * step / 2) / (train * step + val * step / 2)))}


class Results:
    """The runs of a JSON-lines file, and those of this process."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.runs = [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []

    def run_once(self, key: Spec, contender: Callable[..., Spec], **arguments: object) -> Spec:
        """Return the saved run with a key, or else call the contender and save the run."""
        for run in self.runs:
            if {name: run.get(name) for name in key} == key:
                return run
        screen.print(f"{key['contender']}, seed {key['seed']}: {key['seconds']:.0f} s")
        run = key | contender(**arguments)
        self.runs.append(run)
        if self.file:
            with self.file.open("a") as lines:
                lines.write(json.dumps(run) + "\n")
        return run


def run_all(options: argparse.Namespace, data: Spec) -> list[Spec]:
    """Train and evaluate every contender with every seed, except the saved runs."""
    settings = TrainSettings.model_validate(train_section(options.config)).model_dump(mode="json")
    results, seconds = Results(options.results), 60 * options.minutes
    description = json.dumps([settings, Catalogue(data["uri"], data["version"]).fingerprint])
    common: Spec = {"images_and_settings": hashlib.sha256(description.encode()).hexdigest()[:16]}
    runs = []
    key = common | {"contender": "estimated epochs", "seed": 0, "seconds": seconds}
    epochs = options.epochs or results.run_once(key, estimate_epochs, seconds=seconds, data=data, settings=settings)["epochs"]
    for seed in range(options.seeds):
        while True:
            key = common | {"contender": "deeprank", "seed": seed, "seconds": seconds, "epochs": epochs}
            run_settings = settings | {"epochs": epochs, "seed": seed}
            own = results.run_once(key, lambda **kwargs: run_in_process(fit_deeprank, **kwargs), data=data, settings=run_settings)
            if own["wall_time"] <= seconds or options.epochs or epochs == 1:
                break
            epochs -= 1
        runs.append(own)
        for name in options.peers:
            key = common | {"contender": name, "seed": seed, "seconds": round(own["wall_time"] + own["ingest_seconds"], 1)}
            arguments = PEERS[name] | {"seed": seed, "seconds": key["seconds"], "eval_image_size": 192}
            runs.append(results.run_once(key, lambda **kwargs: run_in_process(fit_pml, **kwargs), data=data, **arguments))
    return runs


def summarize(runs: list[Spec]) -> dict[str, Spec]:
    """Return each metric's mean, range, and the 95 % interval of the mean over seeds (Student's t; None for one seed)."""
    summary = {}
    for metric in METRICS:
        values = np.array([run[metric][0] for run in runs])
        n, mean = len(values), float(values.mean())
        half_width = float(student.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else None
        interval = None if half_width is None else [mean - half_width, mean + half_width]
        summary[metric] = {"mean": mean, "low": float(values.min()), "high": float(values.max()), "interval": interval}
    return summary


def show(runs: list[Spec], summaries: dict[str, dict[str, Spec]]) -> None:
    """Print a table of the runs, a table of the contenders, and whether their intervals overlap."""
    table = Table("contender", "seed", "seconds", "images", *METRICS, title="Each run, with its 95 % interval over queries")
    for run in runs:
        cells = [f"{run[metric][0]:.3f} [{run[metric][1]:.3f}, {run[metric][2]:.3f}]" for metric in METRICS]
        table.add_row(run["contender"], str(run["seed"]), f"{run['wall_time']:.0f}", f"{run['images']:,}", *cells)
    page.print(table)
    table = Table("contender", *METRICS, title="Mean, lowest .. highest, and the 95 % interval of the mean over seeds")
    for name, summary in summaries.items():
        cells = []
        for metric in summary.values():
            interval = "[{:.3f}, {:.3f}]".format(*metric["interval"]) if metric["interval"] else "(one seed: no interval)"
            cells.append(f"{metric['mean']:.3f}, {metric['low']:.3f} .. {metric['high']:.3f} {interval}")
        table.add_row(name, *cells)
    page.print(table)
    for name, comparison in compare_intervals(runs, summaries).items():
        page.print(f"recall@1, intervals of deeprank and {name}: over seeds {comparison['seeds']}, over queries {comparison['queries']}")


def compare_intervals(runs: list[Spec], summaries: dict[str, dict[str, Spec]]) -> dict[str, Spec]:
    """Return for each peer whether its recall@1 interval and that of deeprank overlap: over seeds, and over the queries of all runs."""

    def compare(own: Sequence[float] | None, peer: Sequence[float] | None) -> str:
        if own is None or peer is None:
            return "unknown from one seed"
        if own[0] > peer[1]:
            return "apart, deeprank above"
        return "apart, deeprank below" if own[1] < peer[0] else "overlap"

    def over_queries(name: str) -> tuple[float, float]:
        estimates = [run["recall@1"] for run in runs if run["contender"] == name]
        return min(low for _, low, _ in estimates), max(high for _, _, high in estimates)

    def over_seeds(name: str) -> Sequence[float] | None:
        interval: Sequence[float] | None = summaries[name]["recall@1"]["interval"]
        return interval

    return {
        name: {
            "seeds": compare(over_seeds("deeprank"), over_seeds(name)),
            "queries": compare(over_queries("deeprank"), over_queries(name)),
        }
        for name in summaries
        if name != "deeprank"
    }


def main() -> None:
    """Run what is not saved; print tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="wall time of a training (default: 5)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per contender, with the seeds 0, 1, ... (default: 3)")
    parser.add_argument("--epochs", type=int, help="of deeprank, whatever the minutes are (default: as many as fit)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["pml-supcon", "pml-semihard"], help="default: the first two")
    parser.add_argument("--results", type=Path, help="JSON-lines file in which every run is saved")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = run_all(options, prepare(folder, options.data))
    names = ["deeprank", *options.peers]
    summaries = {name: summarize([run for run in runs if run["contender"] == name]) for name in names}
    if options.json:
        print(json.dumps({"runs": runs, "summary": summaries, "recall@1 intervals": compare_intervals(runs, summaries)}))
    else:
        show(runs, summaries)


if __name__ == "__main__":
    main()

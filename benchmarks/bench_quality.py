"""Quality at equal wall time: our fit against pytorch-metric-learning loops (see peers.py), several seeds, one evaluation.

For each seed our fit trains first, with as many epochs as end within the minutes given (from a short measurement of its speed;
were that too many, it starts again with one fewer). Then each peer trains for exactly as long as ours took, start, validation
and saving included, plus as long as our ingest took. Each is evaluated at its own search size (peers: 160 px crops, searched at
192 px): queries are the test split, the gallery is the train split. Nothing is chosen by looking at the test split.

With --results every run is kept as soon as it is there, and not repeated: a benchmark broken off goes on. It knows settings and
images, not code: take a new file for new code.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from peers import GROCERY, METRICS, Spec, alone, ours, page, pml, prepare, screen, train_section
from rich.table import Table
from scipy.stats import t as student

from deeprank.data.catalogue import Catalogue
from deeprank.training.fit import TrainSettings

PEERS: dict[str, Spec] = {
    "pml-supcon": {},
    "pml-semihard": {"miner": True},
    # What the first one becomes with what its user would have to find out.
    "pml-supcon-tuned": {"cosine": True, "memory": True},
}


def epochs_within(seconds: float, data: Spec, settings: Spec) -> Spec:
    """Return how many epochs end within so many seconds, from a fit of an epoch a size on a few images."""
    sizes = len(settings["train_image_sizes"])
    short = alone(ours, data=data, settings=settings | {"epochs": sizes}, subset=(settings["classes_per_batch"], 12), measure=False)
    split = Catalogue(data["uri"], data["version"]).frame["split"]
    train, val = int((split == "train").sum()), int((split == "val").sum())
    few = short["items"] / sizes
    # Start and end, and a look at val after each epoch; it stands for those of the whole training.
    rest = max(0.0, short["took"] - sum(few / speed for speed in short["speeds"]))
    step = sum(1 / speed for speed in short["speeds"]) / sizes
    # An image is embedded in less than half of the time of a step: before the training each, val after each epoch.
    return {"epochs": max(1, int((seconds - rest - train * step / 2) / (train * step + val * step / 2)))}


class Results:
    """What was measured, a line a run."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.known = [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []

    def once(self, what: Spec, run: Callable[..., Spec], **arguments: object) -> Spec:
        """Return the run of this description: the line of the file, else what calling `run` gives."""
        for line in self.known:
            if {name: line.get(name) for name in what} == what:
                return line
        screen.print(f"{what['contender']}, seed {what['seed']}: {what['seconds']:.0f} s")
        line = what | run(**arguments)
        self.known.append(line)
        if self.file:
            with self.file.open("a") as out:
                out.write(json.dumps(line) + "\n")
        return line


def run_all(options: argparse.Namespace, data: Spec) -> list[Spec]:
    """Train and evaluate every contender with every seed, as far as the results lack it."""
    settings = TrainSettings.model_validate(train_section(options.config)).model_dump(mode="json")
    results, seconds = Results(options.results), 60 * options.minutes
    described = json.dumps([settings, Catalogue(data["uri"], data["version"]).fingerprint])
    same: Spec = {"images_and_settings": hashlib.sha256(described.encode()).hexdigest()[:16]}
    runs = []
    fitting = same | {"contender": "epochs that fit", "seed": 0, "seconds": seconds}
    epochs = options.epochs or results.once(fitting, epochs_within, seconds=seconds, data=data, settings=settings)["epochs"]
    for seed in range(options.seeds):
        while True:
            what = same | {"contender": "ours", "seed": seed, "seconds": seconds, "epochs": epochs}
            chosen = settings | {"epochs": epochs, "seed": seed}
            own = results.once(what, alone, contender=ours, data=data, settings=chosen)
            if own["took"] <= seconds or options.epochs or epochs == 1:
                break
            epochs -= 1
        runs.append(own)
        for name in options.peers:
            what = same | {"contender": name, "seed": seed, "seconds": round(own["took"] + own["ingest_seconds"], 1)}
            given = PEERS[name] | {"seed": seed, "seconds": what["seconds"], "eval_image_size": 192}
            runs.append(results.once(what, alone, contender=pml, data=data, **given))
    return runs


def over_seeds(runs: list[Spec]) -> dict[str, Spec]:
    """Return each metric's mean, spread, and 95 % interval of the mean over seeds (Student's t; none of one seed)."""
    found = {}
    for metric in METRICS:
        values = np.array([run[metric][0] for run in runs])
        n = len(values)
        mean, half = float(values.mean()), float(student.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else None
        interval = None if half is None else [mean - half, mean + half]
        found[metric] = {"mean": mean, "low": float(values.min()), "high": float(values.max()), "interval": interval}
    return found


def show(runs: list[Spec], summary: dict[str, dict[str, Spec]]) -> None:
    """Print a table of the runs, one of the contenders, and whether intervals overlap."""
    table = Table("contender", "seed", "seconds", "images", *METRICS, title="Each run, with its 95 % interval over queries")
    for run in runs:
        cells = [f"{run[metric][0]:.3f} [{run[metric][1]:.3f}, {run[metric][2]:.3f}]" for metric in METRICS]
        table.add_row(run["contender"], str(run["seed"]), f"{run['took']:.0f}", f"{run['items']:,}", *cells)
    page.print(table)
    table = Table("contender", *METRICS, title="Mean, lowest .. highest, and the mean's 95 % interval over seeds")
    for name, found in summary.items():
        cells = []
        for one in found.values():
            interval = "[{:.3f}, {:.3f}]".format(*one["interval"]) if one["interval"] else "(one seed: no interval)"
            cells.append(f"{one['mean']:.3f}, {one['low']:.3f} .. {one['high']:.3f} {interval}")
        table.add_row(name, *cells)
    page.print(table)
    for name, verdict in verdicts(runs, summary).items():
        page.print(f"recall@1, intervals of ours and {name}: over seeds {verdict['seeds']}, over queries {verdict['queries']}")


def verdicts(runs: list[Spec], summary: dict[str, dict[str, Spec]]) -> dict[str, Spec]:
    """Return for each peer whether its recall@1 intervals and ours overlap: over seeds, and over queries in any two runs."""

    def compare(own: Sequence[float] | None, peer: Sequence[float] | None) -> str:
        if own is None or peer is None:
            return "unknown from one seed"
        if own[0] > peer[1]:
            return "apart, ours above"
        return "apart, ours below" if own[1] < peer[0] else "overlap"

    def hull(name: str) -> tuple[float, float]:
        found = [run["recall@1"] for run in runs if run["contender"] == name]
        return min(one[1] for one in found), max(one[2] for one in found)

    def over(name: str) -> Sequence[float] | None:
        return summary[name]["recall@1"]["interval"]

    return {
        name: {"seeds": compare(over("ours"), over(name)), "queries": compare(hull("ours"), hull(name))}
        for name in summary
        if name != "ours"
    }


def main() -> None:
    """Run what is missing, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="wall time of a training (default: 5)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings a contender, seeds 0, 1, ... (default: 3)")
    parser.add_argument("--config", default=GROCERY, help="whose train section is ours (default: configs/grocery.yaml)")
    parser.add_argument("--epochs", type=int, help="of ours; the minutes are then not looked at (default: as many as fit)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["pml-supcon", "pml-semihard"], help="default: the first two")
    parser.add_argument("--results", type=Path, help="JSON-lines file that keeps every run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = run_all(options, prepare(folder))
    names = ["ours", *options.peers]
    summary = {name: over_seeds([run for run in runs if run["contender"] == name]) for name in names}
    if options.json:
        print(json.dumps({"runs": runs, "summary": summary, "recall@1 intervals": verdicts(runs, summary)}))
    else:
        show(runs, summary)


if __name__ == "__main__":
    main()

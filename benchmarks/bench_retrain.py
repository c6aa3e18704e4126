"""Retraining from the champion's weights or from scratch (`due.start`): recall@1 on val of both, at equal epochs and at half of them.

The champion learns from a share of the train split, whole groups of near-duplicates at a time. Then all of the train split is
there, and a model learns from it each way. val.recall_at_1 (leave one out) and val.triplet_accuracy of the last epoch, of the
learned embedding alone, and the wall time. The test split is not looked at: this chooses a default.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from statistics import mean

import numpy as np
import yaml
from peers import GROCERY, Spec, alone, page, prepare, screen, train_section
from rich.table import Table

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.reporting import Record
from deeprank.training.fit import TrainSettings, fit
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets

METRICS = ("val.recall_at_1", "val.triplet_accuracy")


def known_part(catalogue: Catalogue, triplets: Triplets, share: float, seed: int) -> Triplets:
    """Return the triplets whose three images are known: those of val and test, and of train a share of the groups."""
    frame = catalogue.frame
    groups = frame.loc[frame["split"] == "train", "group"].unique()
    unknown = np.random.default_rng(seed).permutation(groups)[: round(len(groups) * (1 - share))]
    known = (~frame["group"].isin(unknown)).to_numpy()
    rows = triplets.frame[["query", "positive", "negative"]].to_numpy()
    return dataclasses.replace(triplets, frame=triplets.frame[known[rows].all(axis=1)].reset_index(drop=True))


def train(data: Spec, settings: Spec, share: float, folder: str, start: str | None = None) -> Spec:
    """Train on what is known of the train split, from a bundle's folder or from scratch, into a folder; return the last figures."""
    catalogue, chosen = Catalogue(data["uri"], data["version"]), TrainSettings.model_validate(settings)
    triplets = sample_triplets(catalogue.frame, SampleSettings(seed=chosen.seed), catalogue.fingerprint)
    known = known_part(catalogue, triplets, share, chosen.seed)
    record, began = Record(Path(folder) / "record"), time.perf_counter()
    fit(catalogue, known, chosen, Path(folder) / "bundle", record, start=Bundle(Path(start)) if start else None)
    took = time.perf_counter() - began
    return {point.name: point.value for point in record.points if point.name in METRICS} | {"seconds": took}


def main() -> None:
    """Train the champions and what follows them, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", default=str(Path(GROCERY).with_name("demo.yaml")), help="whose train section (default: configs/demo.yaml)"
    )
    parser.add_argument("--share", type=float, default=0.8, help="of the train split that the champion knows (default: 0.8)")
    parser.add_argument("--epochs", type=int, help="of champion and longer retraining (default: the config's)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    base = train_section(options.config)
    epochs = options.epochs or base["epochs"]
    runs: list[Spec] = []
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare(scratch)
        for seed in range(options.seeds):
            settings, champion = base | {"seed": seed, "epochs": epochs}, f"{scratch}/{seed}"
            screen.print(f"seed {seed}: the champion, of {options.share:.0%} of the train split")
            alone(train, data=data, settings=settings, share=options.share, folder=champion)
            for many in sorted({max(1, epochs // 2), epochs}):
                for name, start in (("scratch", None), ("champion", f"{champion}/bundle")):
                    screen.print(f"seed {seed}: {many} epochs from {name}")
                    given = {"settings": settings | {"epochs": many}, "share": 1.0, "folder": f"{champion}-{name}-{many}", "start": start}
                    runs.append({"start": name, "epochs": many, "seed": seed} | alone(train, data=data, **given))
    if options.json:
        print(json.dumps({"config": yaml.safe_load(Path(options.config).read_text()), "share": options.share, "runs": runs}))
        return
    table = Table("epochs", "start", *METRICS, "seconds", title=f"{options.seeds} seeds: mean, lowest .. highest")
    for many, name in sorted({(run["epochs"], run["start"]) for run in runs}):
        some = [run for run in runs if (run["epochs"], run["start"]) == (many, name)]
        columns = [[run[metric] for run in some] for metric in METRICS]
        cells = (f"{mean(one):.3f}, {min(one):.3f} .. {max(one):.3f}" for one in columns)
        table.add_row(str(many), name, *cells, f"{mean(run['seconds'] for run in some):.0f}")
    page.print(table)


if __name__ == "__main__":
    main()

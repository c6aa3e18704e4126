"""Retraining from the champion's weights or from the pretrained weights (`retraining_due.init`), with all and with half of the epochs.

The champion is trained on a share of the train split, by whole duplicate groups. Then a model is trained on the whole train split,
from each of the two initial weights. Reported are val.recall_at_1 (leave one out) and val.triplet_accuracy of the last epoch, both
of the learned embedding alone, and the wall time. The test split is not used, because this benchmark chooses a default.
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from statistics import mean

import numpy as np
import yaml
from peers import GROCERY_CONFIG, Spec, create_parser, mean_and_range, page, prepare, run_in_process, screen, train_section
from rich.table import Table

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.reporting import Record
from deeprank.training.fit import fit
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets

METRICS = ("val.recall_at_1", "val.triplet_accuracy")


def select_triplets(catalogue: Catalogue, triplets: Triplets, share: float, seed: int) -> Triplets:
    """Return the triplets of a share of the duplicate groups of train, and all of val and test."""
    frame = catalogue.frame
    groups = frame.loc[frame["split"] == "train", "duplicate_group"].unique()
    unused = np.random.default_rng(seed).permutation(groups)[: round(len(groups) * (1 - share))]
    used = (~frame["duplicate_group"].isin(unused)).to_numpy()
    rows = triplets.frame[["query", "positive", "negative"]].to_numpy()
    return dataclasses.replace(triplets, frame=triplets.frame[used[rows].all(axis=1)].reset_index(drop=True))


def train(data: Spec, settings: Spec, share: float, folder: str, init_folder: str | None = None) -> Spec:
    """Train on a share of the train split.

    Args:
        data: as returned by `prepare`.
        settings: of the training.
        share: of the duplicate groups of the train split.
        folder: of the new bundle.
        init_folder: of the bundle to start from; None: start from the pretrained weights.

    Returns:
        the metrics of the last epoch, and the seconds.

    """
    catalogue, train_settings = Catalogue(data["uri"], data["version"]), TrainSettings.model_validate(settings)
    triplets = sample_triplets(catalogue.frame, SampleSettings(seed=train_settings.seed), catalogue.fingerprint)
    selected = select_triplets(catalogue, triplets, share, train_settings.seed)
    record, start = Record(Path(folder) / "record"), time.perf_counter()
    init_bundle = Bundle(Path(init_folder)) if init_folder else None
    fit(catalogue, selected, train_settings, Path(folder) / "bundle", record, init_bundle=init_bundle)
    seconds = time.perf_counter() - start
    return {point.name: point.value for point in record.points if point.name in METRICS} | {"seconds": seconds}


def main() -> None:
    """Train the champions and the retrainings; print a table."""
    parser = create_parser(__doc__, GROCERY_CONFIG.with_name("demo.yaml"))
    parser.add_argument("--share", type=float, default=0.8, help="of the train split that the champion is trained on (default: 0.8)")
    parser.add_argument("--epochs", type=int, help="of champion and longer retraining (default: those of the config)")
    parser.add_argument("--seeds", type=int, default=3, help="champions (default: 3)")
    options = parser.parse_args()
    base = train_section(options.config)
    max_epochs = options.epochs or base["epochs"]
    runs: list[Spec] = []
    with tempfile.TemporaryDirectory() as temporary:
        data = prepare(temporary, options.data)
        for seed in range(options.seeds):
            settings, champion = base | {"seed": seed, "epochs": max_epochs}, f"{temporary}/{seed}"
            screen.print(f"seed {seed}: the champion, on {options.share:.0%} of the train split")
            run_in_process(train, data=data, settings=settings, share=options.share, folder=champion)
            for epochs in sorted({max(1, max_epochs // 2), max_epochs}):
                for init, init_folder in (("pretrained", None), ("champion", f"{champion}/bundle")):
                    screen.print(f"seed {seed}: {epochs} epochs, init: {init}")
                    folders = {"folder": f"{champion}-{init}-{epochs}", "init_folder": init_folder}
                    run = run_in_process(train, data=data, settings=settings | {"epochs": epochs}, share=1.0, **folders)
                    runs.append({"init": init, "epochs": epochs, "seed": seed} | run)
    if options.json:
        print(json.dumps({"config": yaml.safe_load(options.config.read_text()), "share": options.share, "runs": runs}))
        return
    table = Table("epochs", "init", *METRICS, "seconds", title=f"{options.seeds} seeds: mean, lowest .. highest")
    for epochs, init in sorted({(run["epochs"], run["init"]) for run in runs}):
        group = [run for run in runs if (run["epochs"], run["init"]) == (epochs, init)]
        cells = (mean_and_range([run[metric] for run in group]) for metric in METRICS)
        table.add_row(str(epochs), init, *cells, f"{mean(run['seconds'] for run in group):.0f}")
    page.print(table)


if __name__ == "__main__":
    main()

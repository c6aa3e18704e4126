"""Effect of the paper's two low-resolution branches: the same training with and without them.

Settings, images, seeds and epochs are the same. Queries are the test split, the gallery is the train split. `triplets` is the share
of test triplets whose query is nearer to the positive (the paper's similarity precision: 85.7 % with the branches, 84.6 % without
them, on its own images).
"""

import json
import tempfile
from statistics import mean

from peers import METRICS, Spec, create_parser, fit_deeprank, mean_and_range, page, prepare, run_in_process, screen, train_section
from rich.table import Table


def main() -> None:
    """Train both with every seed; print the difference."""
    parser = create_parser(__doc__)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="any timm model (default: %(default)s); the paper: vgg16")
    parser.add_argument("--weights", default="package", help="package (of the default backbone), hub, file:PATH, none")
    parser.add_argument("--epochs", type=int, default=6, help="of each training (default: 6)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    options = parser.parse_args()
    # A random head for both: PCA initializes only the head without branches, which would hide a part of their effect.
    settings = train_section(options.config) | {"epochs": options.epochs, "init_head": "random"}
    model_settings = settings.get("model", {}) | {"backbone": options.backbone, "weights": options.weights, "pretrained_share": 0}
    runs: list[Spec] = []
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder, options.data)
        for seed in range(options.seeds):
            for multiscale in (False, True):
                screen.print(f"seed {seed}, multiscale {str(multiscale).lower()}")
                run_settings = settings | {"seed": seed, "model": model_settings | {"multiscale": multiscale}}
                run = run_in_process(fit_deeprank, data=data, settings=run_settings)
                runs.append({"seed": seed, "multiscale": multiscale} | run)
    without, with_branches = ([run for run in runs if run["multiscale"] is multiscale] for multiscale in (False, True))
    gains = {name: [b[name][0] - a[name][0] for a, b in zip(without, with_branches, strict=True)] for name in METRICS}
    if options.json:
        print(json.dumps({"backbone": options.backbone, "runs": runs, "gains": gains}))
        return
    title = f"{options.backbone}, {options.epochs} epochs, {options.seeds} seeds: mean, lowest .. highest"
    table = Table("low-resolution branches", *METRICS, "seconds", title=title)
    for name, group in (("without", without), ("with", with_branches)):
        cells = (mean_and_range([run[metric][0] for run in group]) for metric in METRICS)
        table.add_row(name, *cells, f"{mean(run['wall_time'] for run in group):.0f}")
    table.add_row("gain", *(mean_and_range(gain, "+") for gain in gains.values()), "")
    page.print(table)


if __name__ == "__main__":
    main()

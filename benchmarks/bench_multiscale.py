"""What the paper's two low-resolution branches add to a ConvNet: the same fit with and without them.

Settings, images, seeds and epochs are the same; queries are the test split, the gallery is the train split. `triplets` is
the share of test triplets whose query lies nearer to the positive (the paper's similarity precision; 85.7 % with the branches,
84.6 % without, on its own images).
"""

import argparse
import json
import tempfile
from statistics import mean

from peers import GROCERY, METRICS, Spec, alone, ours, page, prepare, screen, train_section
from rich.table import Table


def main() -> None:
    """Train both with every seed, print what the branches add."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=GROCERY, help="whose train section is used (default: configs/grocery.yaml)")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="any timm model (default: %(default)s), vgg16 for the paper's")
    parser.add_argument("--weights", default="package", help="package (of the default backbone), hub, file:PATH, none")
    parser.add_argument("--epochs", type=int, default=6, help="of each training (default: 6)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    # Both heads start at random: one on the ConvNet alone could start better, and hide what the branches add.
    settings = train_section(options.config) | {"epochs": options.epochs, "init_head": "random"}
    model_settings = settings.get("model", {}) | {"backbone": options.backbone, "weights": options.weights, "pretrained_share": 0}
    runs: list[Spec] = []
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder)
        for seed in range(options.seeds):
            for multiscale in (False, True):
                screen.print(f"seed {seed}, multiscale {str(multiscale).lower()}")
                chosen = settings | {"seed": seed, "model": model_settings | {"multiscale": multiscale}}
                runs.append({"seed": seed, "multiscale": multiscale} | alone(ours, data=data, settings=chosen))
    without, having = ([run for run in runs if run["multiscale"] is wanted] for wanted in (False, True))
    gains = {name: [b[name][0] - a[name][0] for a, b in zip(without, having, strict=True)] for name in METRICS}
    if options.json:
        print(json.dumps({"backbone": options.backbone, "runs": runs, "gains": gains}))
        return
    title = f"{options.backbone}, {options.epochs} epochs, {options.seeds} seeds: mean, lowest .. highest"
    table = Table("low-resolution branches", *METRICS, "seconds", title=title)
    for name, some in (("without", without), ("with", having)):
        columns = [[run[metric][0] for run in some] for metric in METRICS]
        table.add_row(
            name, *(f"{mean(one):.3f}, {min(one):.3f} .. {max(one):.3f}" for one in columns), f"{mean(r['took'] for r in some):.0f}"
        )
    table.add_row("gain", *(f"{mean(one):+.3f}, {min(one):+.3f} .. {max(one):+.3f}" for one in gains.values()), "")
    page.print(table)


if __name__ == "__main__":
    main()

"""Commands on the model registry: models, promote, rollback, summary."""

import json
import os
import shlex
from math import isnan
from pathlib import Path
from typing import Annotated

import typer

from deeprank.cli.options import JsonOption, NameOption, ReasonOption
from deeprank.cli.output import console, print_table
from deeprank.home import home

SUMMARY_METRICS = ("triplet_accuracy", "fine.recall_at_1", "baseline.fine.recall_at_1", "fine.map_at_r", "coarse.recall_at_1")


def models(
    name: NameOption = "deeprank",
    history: Annotated[
        bool, typer.Option("--history", help="List every change of the champion, oldest first, with its reason and run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the releases, newest first: aliases, recall, and why each one is the champion or not."""
    from deeprank.registry.champion import champion_history
    from deeprank.registry.releases import list_versions

    rows = [vars(entry) for entry in (champion_history(name) if history else list_versions(name))]
    if as_json:
        print(json.dumps(rows))
    elif rows:
        print_table(rows)
    elif history:
        console.print(f"{name} has had no champion yet; `deeprank models --name {name}` says why.")
    else:
        console.print(f"No release of {name} yet: `deeprank run configs/demo.yaml` makes one.")


def promote(
    version: Annotated[int, typer.Argument(min=1, help="Number of the release, as in `deeprank models`.")],
    reason: ReasonOption = "manual",
    name: NameOption = "deeprank",
    force: Annotated[bool, typer.Option("--force", help="Promote a release that the gate held.")] = False,
) -> None:
    """Make a release the champion; a release that the gate held needs --force."""
    from deeprank.registry.champion import promote as promote_version

    move = promote_version(name, version, reason, force)
    console.print(f"{name}: version {move.version} is the champion now; before: {_version(move.previous_version)}")


def rollback(reason: ReasonOption = "manual", name: NameOption = "deeprank") -> None:
    """Make the previous champion the champion again; a second rollback goes back one champion more."""
    from deeprank.registry.champion import rollback as roll_back

    move = roll_back(name, reason)
    console.print(f"{name}: version {move.version} is the champion again; before: {_version(move.previous_version)}")


def _version(number: int | None) -> str:
    return f"version {number}" if number else "none"


def summary(name: NameOption = "deeprank") -> None:
    """Print the metrics of the newest release, its report, and commands to continue with."""
    from deeprank.registry.releases import summarize_latest_release

    release = summarize_latest_release(name)
    metrics = {key: release.metrics[key] for key in SUMMARY_METRICS if key in release.metrics}
    rows = [
        {"metric": key, "value": f"{metric.value:.4f}", "95 % interval": f"{metric.low:.4f} – {metric.high:.4f}"}
        for key, metric in metrics.items()
        if not isnan(metric.value)
    ]
    if rows:
        print_table(rows)
    else:
        _print_lines("No metrics: no image of the test split has another image of its class in the test or train split.", "")
    decision = f"{release.state.replace('-', ' ')}: {release.reason.removeprefix(f'{release.state}: ')}"
    console.print(f"{name} version {release.version}, alias {release.aliases or 'none'}; {decision}\n")
    folder = Path(release.source).expanduser().resolve()
    image, other_image = (shlex.quote(str(folder / path)) for path in (release.example, release.other_example))
    model = f"models:/{name}/{release.version}"
    commands = [
        f"deeprank search --model {model} {image} -k 5",
        f"deeprank distance --model {model} --image1 {image} --image2 {other_image}",
        "deeprank models",
        f"mlflow ui --backend-store-uri {shlex.quote(os.environ['MLFLOW_TRACKING_URI'])} --port 5000",
    ]
    _print_lines("Continue with (after `. .venv/bin/activate`):", *commands)
    _print_lines(f"All files are in {home()}.")
    if release.report:
        _print_lines("Report, to open in a browser:", release.report)
    _print_lines("Search page in the browser:", f"deeprank serve --model {model}")


def _print_lines(title: str, *lines: str) -> None:
    console.print(title, *lines, sep="\n  ")

"""How often the promotion gate errs, by simulation: equal challengers, lucky seeds, true gains, ruined class groups.

Each case draws 1,000 queries (`--queries`) of a champion and a challenger and lets `decide` judge them, once with its default
settings and once without training noise. Discordance is the share of queries that only one of the two gets right: between two
seeds of configs/grocery.yaml it is 5 to 6 %. A true gain moves the share of queries gained, that of queries lost stays.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from deeprank.evaluation.evaluation import METRIC
from deeprank.evaluation.gate import Decision, PromotionSettings, decide


@dataclass(frozen=True)
class Case:
    """Two models to draw.

    Attributes:
        discordance: share of queries that one of two equal models gets right and the other does not.
        gain: of recall@1 that the challenger truly has.
        luck: standard deviation of each model's true recall@1 between seeds.
        groups: class groups, of the same size.
        fall: of recall@1 in the first class group.
        duplicates: so many queries in a row are near-duplicates, which fare alike.
        uneven: the class groups differ in discordance: a few have most of it.

    """

    discordance: float = 0.08
    gain: float = 0.0
    luck: float = 0.0
    groups: int = 12
    fall: float = 0.0
    duplicates: int = 1
    uneven: bool = False


def draw(case: Case, queries: int, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame, npt.NDArray[np.int64]]:
    """Return the queries' tables of challenger and champion, and the queries' near-duplicate groups."""
    kinds = queries // case.duplicates
    group = np.arange(kinds) * case.groups // kinds
    discordance = (
        rng.beta(4 * case.discordance, 4 * (1 - case.discordance), case.groups) if case.uneven else np.full(case.groups, case.discordance)
    )
    gain = case.gain + rng.normal(0, 2**0.5 * case.luck) - case.fall * (np.arange(case.groups) == 0)
    up, down = (discordance / 2 + np.maximum(sign * gain, 0) for sign in (1, -1))
    chance = rng.random(kinds)
    gained, lost = chance < up[group], chance > 1 - down[group]
    alike = rng.random(kinds) < 0.93
    frames = []
    for right in (np.where(gained, True, np.where(lost, False, alike)), np.where(gained, False, np.where(lost, True, alike))):
        labels = [f"top/group {number:02d}/leaf" for number in group]
        frame = pd.DataFrame({"label": labels, METRIC: right.astype(np.float64)}).loc[np.repeat(np.arange(kinds), case.duplicates)]
        frames.append(frame.reset_index(drop=True).rename_axis("row").reset_index())
    return frames[0], frames[1], np.repeat(np.arange(kinds), case.duplicates)


def promotes(decision: Decision) -> bool:
    """Whether the challenger became the champion."""
    return decision.promoted


def blocks(decision: Decision) -> bool:
    """Whether any class group holds the challenger."""
    return bool(decision.groups["blocks"].any())


def names(decision: Decision) -> bool:
    """Whether the challenger is held and the ruined group is named."""
    return decision.state == "held" and "top/group 00 (" in decision.reason


CASES: dict[str, tuple[Case, Callable[[Decision], bool], str]] = {
    **{f"equal, discordance {d:.0%}": (Case(d), promotes, "promoted") for d in (0.04, 0.08, 0.2)},
    "equal, four near-duplicates each": (Case(duplicates=4), promotes, "promoted"),
    **{
        f"equal but for the seed, which moves recall@1 by {s}": (Case(0.06, luck=s), promotes, "promoted")
        for s in (0.003, 0.005, 0.007, 0.01)
    },
    **{f"better by {g:.0%}, discordance {d:.0%}": (Case(d, g), promotes, "promoted") for g in (0.02, 0.03, 0.05) for d in (0.04, 0.08)},
    **{f"equal, 40 class groups, {d:.0%} of 30 each": (Case(d, groups=40), blocks, "a group blocks") for d in (0.08, 0.2)},
    "equal, 12 class groups, a few with most of the discordance": (Case(uneven=True), blocks, "a group blocks"),
    "better by 5%, but a class group of 30 falls by 30": (Case(0.06, 0.05, groups=33, fall=0.35), names, "held, naming it"),
    "better by 5%, but a class group of 60 falls by 30": (Case(0.06, 0.05, groups=16, fall=0.35), names, "held, naming it"),
    "better by 5%, but a class group of 60 falls by 15": (Case(0.06, 0.05, groups=16, fall=0.20), names, "held, naming it"),
}
# 40 class groups of 30 need as many queries.
AT_LEAST = 30


def rates(case: Case, counts: Callable[[Decision], bool], queries: int, draws: int) -> dict[str, dict[str, float]]:
    """Return how often what is counted happened, with its exact 95 % interval: by default, and without training noise."""
    found = {}
    for name, settings in (("default", PromotionSettings()), ("without training noise", PromotionSettings(training_noise=0))):
        rng, happened = np.random.default_rng(0), 0
        for _ in range(draws):
            challenger, champion, groups = draw(case, max(queries, AT_LEAST * case.groups), rng)
            happened += counts(decide(challenger, champion, groups, settings))
        interval = binomtest(happened, draws).proportion_ci()
        found[name] = {"rate": happened / draws, "low": float(interval.low), "high": float(interval.high)}
    return found


def main() -> None:
    """Simulate each case, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=400, help="simulated decisions a case and setting (default: 400)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = {name: rates(case, counts, options.queries, options.draws) | {"of": what} for name, (case, counts, what) in CASES.items()}
    if options.json:
        print(json.dumps({"queries": options.queries, "draws": options.draws, "cases": found}))
        return
    title = f"{options.queries:,} queries, {options.draws:,} decisions a cell, 95 % intervals"
    table = Table("challenger", "share", "default settings", "without training noise", title=title)
    for name, result in found.items():
        cells = [
            f"{100 * r['rate']:.1f} % [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"
            for r in (result["default"], result["without training noise"])
        ]
        table.add_row(name, str(result["of"]), *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

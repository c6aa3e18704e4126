"""Error rates of the promotion gate, by simulation: equal challengers, lucky seeds, true gains, drops in class groups.

Each case draws 1,000 queries (`--queries`) of a champion and a challenger and passes them to `decide`, once with the default settings
and once without training noise. Discordance is the share of queries that only one of the two models answers correctly: between two
seeds of configs/grocery.yaml it is 5 to 6 %. A true gain changes the share of queries gained; the share of queries lost stays.
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

from deeprank.evaluation.evaluation import MAIN_METRIC
from deeprank.evaluation.gate import Decision, PromotionSettings, decide

# Recall@1 of both models where they agree.
BASE_RECALL = 0.93
# With 40 class groups the cases need 30 queries in each.
MIN_CLASS_GROUP_QUERIES = 30


@dataclass(frozen=True)
class Case:
    """Two models to simulate.

    Attributes:
        discordance: share of queries that only one of two equal models answers correctly.
        gain: true gain of recall@1 of the challenger.
        seed_std: standard deviation of the true recall@1 of each model between training seeds.
        class_groups: number of class groups of equal size.
        drop: of recall@1 in the first class group.
        duplicates: size of the near-duplicate groups; the queries of a group have the same result.
        uneven: a few class groups have most of the discordance.

    """

    discordance: float = 0.08
    gain: float = 0.0
    seed_std: float = 0.0
    class_groups: int = 12
    drop: float = 0.0
    duplicates: int = 1
    uneven: bool = False


def draw(case: Case, queries: int, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame, npt.NDArray[np.int64]]:
    """Return the query tables of challenger and champion, and the near-duplicate group of each query."""
    distinct = queries // case.duplicates
    class_group = np.arange(distinct) * case.class_groups // distinct
    discordance = np.full(case.class_groups, case.discordance)
    if case.uneven:
        discordance = rng.beta(4 * case.discordance, 4 * (1 - case.discordance), case.class_groups)
    gain = case.gain + rng.normal(0, 2**0.5 * case.seed_std) - case.drop * (np.arange(case.class_groups) == 0)
    gain_rate, loss_rate = (discordance / 2 + np.maximum(sign * gain, 0) for sign in (1, -1))
    chance = rng.random(distinct)
    gained, lost = chance < gain_rate[class_group], chance > 1 - loss_rate[class_group]
    common_hit = rng.random(distinct) < BASE_RECALL
    labels = [f"top/group {number:02d}/leaf" for number in class_group]
    tables = []
    for hits in (np.where(gained, True, np.where(lost, False, common_hit)), np.where(gained, False, np.where(lost, True, common_hit))):
        table = pd.DataFrame({"label": labels, MAIN_METRIC: hits.astype(np.float64)})
        table = table.loc[np.repeat(np.arange(distinct), case.duplicates)]
        tables.append(table.reset_index(drop=True).rename_axis("row").reset_index())
    return tables[0], tables[1], np.repeat(np.arange(distinct), case.duplicates)


def is_promoted(decision: Decision) -> bool:
    """Return whether the challenger became the champion."""
    return decision.promoted


def is_blocked(decision: Decision) -> bool:
    """Return whether any class group blocks the challenger."""
    return bool(decision.class_groups["blocks"].any())


def names_first_group(decision: Decision) -> bool:
    """Return whether the challenger is held and the reason names the first class group."""
    return decision.state == "held" and "top/group 00 (" in decision.reason


CASES: dict[str, tuple[Case, Callable[[Decision], bool], str]] = {
    **{f"equal, discordance {d:.0%}": (Case(d), is_promoted, "promoted") for d in (0.04, 0.08, 0.2)},
    "equal, four near-duplicates each": (Case(duplicates=4), is_promoted, "promoted"),
    **{
        f"equal except for the seed, std of recall@1 {s}": (Case(0.06, seed_std=s), is_promoted, "promoted")
        for s in (0.003, 0.005, 0.007, 0.01)
    },
    **{f"better by {g:.0%}, discordance {d:.0%}": (Case(d, g), is_promoted, "promoted") for g in (0.02, 0.03, 0.05) for d in (0.04, 0.08)},
    **{
        f"equal, 40 class groups of 30, discordance {d:.0%}": (Case(d, class_groups=40), is_blocked, "a class group blocks")
        for d in (0.08, 0.2)
    },
    "equal, 12 class groups, a few with most of the discordance": (Case(uneven=True), is_blocked, "a class group blocks"),
    "better by 5%, a class group of 30 drops by 30 points": (
        Case(0.06, 0.05, class_groups=33, drop=0.35),
        names_first_group,
        "held, naming it",
    ),
    "better by 5%, a class group of 60 drops by 30 points": (
        Case(0.06, 0.05, class_groups=16, drop=0.35),
        names_first_group,
        "held, naming it",
    ),
    "better by 5%, a class group of 60 drops by 15 points": (
        Case(0.06, 0.05, class_groups=16, drop=0.20),
        names_first_group,
        "held, naming it",
    ),
}


def simulate(case: Case, is_counted: Callable[[Decision], bool], queries: int, draws: int) -> dict[str, dict[str, float]]:
    """Return the share of counted decisions with its exact 95 % interval, with default settings and without training noise."""
    rates = {}
    for name, settings in (("default", PromotionSettings()), ("without training noise", PromotionSettings(training_noise=0))):
        rng, count = np.random.default_rng(0), 0
        for _ in range(draws):
            challenger, champion, duplicate_groups = draw(case, max(queries, MIN_CLASS_GROUP_QUERIES * case.class_groups), rng)
            count += is_counted(decide(challenger, champion, duplicate_groups, settings))
        interval = binomtest(count, draws).proportion_ci()
        rates[name] = {"rate": count / draws, "low": float(interval.low), "high": float(interval.high)}
    return rates


def main() -> None:
    """Simulate each case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=400, help="simulated decisions per case and setting (default: 400)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results = {
        name: simulate(case, is_counted, options.queries, options.draws) | {"event": event}
        for name, (case, is_counted, event) in CASES.items()
    }
    if options.json:
        print(json.dumps({"queries": options.queries, "draws": options.draws, "cases": results}))
        return
    title = f"{options.queries:,} queries, {options.draws:,} decisions per cell, 95 % intervals"
    table = Table("challenger", "counted", "default settings", "without training noise", title=title)
    for name, result in results.items():
        cells = [
            f"{100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
            for rate in (result["default"], result["without training noise"])
        ]
        table.add_row(name, str(result["event"]), *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

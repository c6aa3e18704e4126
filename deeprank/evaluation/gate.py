"""Whether a new release becomes the champion: a paired test on the queries that both answered, with an audit trail."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from deeprank.evaluation.evaluation import METRIC
from deeprank.evaluation.intervals import Estimate, estimate, share_interval
from deeprank.settings import Settings
from deeprank.triplets.relevance import coarse_labels

LEVEL = 0.95
# Enough that the interval's ends stand still to a tenth of a point.
RESAMPLES = 10_000


class PromotionSettings(Settings):
    """What a release must reach.

    Attributes:
        floor: recall@1 that the first champion needs at least.
        margin: what the lower end of the gain's 95 % interval must exceed; the gain is in recall@1 over the champion.
        max_group_drop: by how much recall@1 may fall within a class group (coarse class); more, and not by chance, holds the challenger.
        min_queries: of the test split, near-duplicates counted once; fewer prove nothing, and the decision is invalid.
        min_group_queries: a class group of fewer is not looked at.
        training_noise: standard deviation of recall@1 on one test split between trainings that differ in the seed alone, in excess
            of what the choice of queries explains; it widens the interval, so that a lucky seed is not promoted. Recipes on the
            grocery images have 0.005 on average (0 to 0.010); 0: better on these queries is better, whatever made it so.

    """

    floor: float = Field(0.5, ge=0, le=1)
    margin: float = Field(0.0, ge=0, le=1)
    max_group_drop: float = Field(0.05, ge=0, le=1)
    min_queries: int = Field(100, ge=1)
    min_group_queries: int = Field(30, ge=1)
    training_noise: float = Field(0.005, ge=0, lt=1)


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and by what right.

    Attributes:
        state: promoted; held: not better enough, or worse in a group; no-champion: measured against the floor, there being
            nothing to compare with; invalid: nothing can be said; refreshed: the champion's own model, its index changed.
        promoted: the challenger becomes the champion.
        reason: in words and figures.
        gain: of recall@1 a query over the champion, with its 95 % interval, training noise included.
        groups: a row a class group looked at, largest loss first: group, queries, gain, low, high, blocks.
        inputs: further figures that went into the decision, by name.

    """

    state: Literal["promoted", "held", "no-champion", "invalid", "refreshed"]
    promoted: bool
    reason: str
    gain: Estimate | None = None
    groups: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["group", "queries", "gain", "low", "high", "blocks"]))
    inputs: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Return every figure by its name as a tag: gate.gain, gate.gain.low, gate.margin, gate.queries, …"""  # noqa: D400, D415
        found = {f"gate.{name}": float(value) for name, value in self.inputs.items()}
        if self.gain is not None:
            found |= {"gate.gain": self.gain.value, "gate.gain.low": self.gain.low, "gate.gain.high": self.gain.high}
            found |= {"gate.groups": float(len(self.groups)), "gate.groups_blocking": float(self.groups["blocks"].sum())}
        return found

    def save(self, folder: Path) -> None:
        """Write decision.json and groups.csv."""
        folder.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"state": self.state, "promoted": self.promoted, "reason": self.reason}
        facts |= {"gain": None if self.gain is None else asdict(self.gain), "figures": self.figures()}
        (folder / "decision.json").write_text(json.dumps(facts, indent=1))
        self.groups.to_csv(folder / "groups.csv", index=False)


def decide(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None,
    groups: Sequence[int] | Sequence[str] | npt.NDArray[Any],
    settings: PromotionSettings,
    problems: Sequence[str] = (),
) -> Decision:
    """Decide whether the challenger becomes the champion.

    Args:
        challenger: queries of its evaluation; columns row, label, fine.recall_at_1.
        champion: the same of the champion on the same test split; None where there is none.
        groups: (len(challenger),) near-duplicate group of each of the challenger's queries.
        settings: what it must reach.
        problems: found elsewhere, in words (a leak between the splits, say); any makes the decision invalid.

    Source: the paired differences of Efron and Tibshirani 1993, chapter 15, resampled in clusters; class groups: see `group_gains`.

    """
    new = challenger[METRIC].to_numpy(dtype=np.float64)
    answered = ~np.isnan(new)
    queries, apart = int(answered.sum()), len(np.unique(np.asarray(groups)[answered]))
    inputs: dict[str, float] = {"queries": queries, "queries_apart": apart, "min_queries": settings.min_queries}
    found = list(problems)
    # The interval is drawn over near-duplicate groups: a hundred frames of one scene are one query to it.
    if apart < settings.min_queries:
        few = f", {apart:,} that are no near-duplicates of each other" if apart < queries else ""
        found.append(f"{queries:,} queries of the test split can be answered{few}, {settings.min_queries:,} are needed (min_queries)")
    if champion is not None and set(challenger["row"]) != set(champion["row"]):
        both = len(set(challenger["row"]) & set(champion["row"]))
        found.append(f"challenger and champion answered different queries, {both:,} of {len(challenger):,} the same: evaluate both anew")
    if found:
        return Decision("invalid", False, "; ".join(found), inputs=inputs)
    inputs |= {"recall_at_1": float(np.nanmean(new))}
    if champion is None:
        reached = inputs["recall_at_1"] >= settings.floor
        reason = (
            f"no champion yet: recall@1 {inputs['recall_at_1']:.4f} on {queries:,} queries {'reaches' if reached else 'does not reach'}"
        )
        return Decision("no-champion", reached, f"{reason} the floor {settings.floor:.4f}", inputs=inputs | {"floor": settings.floor})
    old = champion.set_index("row")[METRIC].loc[challenger["row"]].to_numpy(dtype=np.float64)
    difference, codes = new - old, np.unique(np.asarray(groups), return_inverse=True)[1]
    # Both trainings had their luck.
    gain = estimate(difference, codes, level=LEVEL, resamples=RESAMPLES, noise=2**0.5 * settings.training_noise)
    inputs |= {"champion_recall_at_1": float(np.nanmean(old)), "margin": settings.margin, "training_noise": settings.training_noise}
    inputs |= {"gained": int((difference > 0).sum()), "lost": int((difference < 0).sum()), "max_group_drop": settings.max_group_drop}
    table = group_gains(difference, coarse_labels(challenger["label"].tolist()), codes, settings)
    return _verdict(gain, table, inputs, settings)


def _verdict(gain: Estimate, table: pd.DataFrame, inputs: dict[str, float], settings: PromotionSettings) -> Decision:
    """Weigh the gain and the groups that lost."""
    better, lost = gain.low > settings.margin, table[table["blocks"]]
    state: Literal["promoted", "held"] = "promoted" if better and not len(lost) else "held"
    reason = (
        f"{state}: recall@1 {inputs['recall_at_1']:.4f}, the champion's {inputs['champion_recall_at_1']:.4f}: gain {gain.value:+.4f} "
        f"[{gain.low:+.4f}, {gain.high:+.4f}] on {gain.count:,} queries ({inputs['gained']:,} gained, {inputs['lost']:,} lost), "
        f"its lower end {'above' if better else 'not above'} the margin {settings.margin:.4f}"
    )
    if len(lost):
        named = ", ".join(f"{r.group} ({r.gain:+.3f} [{r.low:+.3f}, {r.high:+.3f}] on {r.queries} queries)" for r in lost.itertuples())
        reason += f"; fell by more than {settings.max_group_drop:.3f}, and not by chance: {named}"
    else:
        reason += f"; none of {len(table)} class groups fell by more than {settings.max_group_drop:.3f} beyond chance"
    return Decision(state, state == "promoted", reason, gain, table, inputs)


def group_gains(
    difference: npt.NDArray[np.float64], labels: Sequence[str], codes: npt.NDArray[np.int64], settings: PromotionSettings
) -> pd.DataFrame:
    """Return the gain in each class group of enough queries, and whether it blocks: a loss above the limit that is no accident.

    The test is a sign test with mid-p over near-duplicate groups that gained or lost; all class groups together block an equal
    challenger with about 5 % at most.

    Args:
        difference: (n,) challenger less champion of each query; NaN values are left out.
        labels: (n,) class group of each query.
        codes: (n,) near-duplicate group of each query.
        settings: which groups are looked at, and the limit.

    Source: Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data"; Tarone 1990, "A modified
    Bonferroni method for discrete data".

    """
    known = ~np.isnan(difference)
    difference, codes = difference[known], codes[known]
    names, group = np.unique(np.asarray(labels)[known], return_inverse=True)
    queries = np.bincount(group)
    keys, place = np.unique(group * (codes.max(initial=0) + 1) + codes, return_inverse=True)
    signed, of = np.bincount(place, weights=difference), keys // (codes.max(initial=0) + 1)
    looked = np.flatnonzero(queries >= settings.min_group_queries)
    trials, losses = (np.bincount(of[which], minlength=len(names))[looked] for which in (signed != 0, signed < 0))
    # Not the bootstrap: of 30 differences, few of them not 0, it blocks an equal challenger in up to 16 % (40 groups, 20 % not 0).
    tail = (1 - LEVEL) / comparisons(trials, 1 - LEVEL)
    shares = [
        share_interval(lost, moved, tail) if moved else (0.5, 0.5) for lost, moved in zip(losses.tolist(), trials.tolist(), strict=True)
    ]
    # The share of losses among what moved, as a gain a query.
    scale = (np.bincount(of, weights=np.abs(signed), minlength=len(names)) / np.maximum(queries, 1))[looked]
    low, high = (scale * (1 - 2 * np.array([share[end] for share in shares])) for end in (1, 0))
    gain = (np.bincount(group, weights=difference, minlength=len(names)) / np.maximum(queries, 1))[looked]
    table = pd.DataFrame({"group": names[looked], "queries": queries[looked], "gain": gain, "low": low, "high": high})
    table["blocks"] = (table["gain"] < -settings.max_group_drop) & (table["high"] < 0)
    return table.sort_values("gain", kind="stable").reset_index(drop=True)


def comparisons(trials: npt.NDArray[np.int64], level: float) -> int:
    """Return by how many the level is divided: only groups where enough moved to tell anything count, as Tarone has it."""
    least = 0.5 ** (trials + 1.0)
    return next((k for k in range(1, len(trials) + 1) if (least <= level / k).sum() <= k), 1)

"""The promotion gate: a paired test of a challenger against the champion on the same test queries."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from deeprank.evaluation.class_groups import CLASS_GROUP_COLUMNS, class_group_gains
from deeprank.evaluation.evaluation import MAIN_METRIC
from deeprank.evaluation.intervals import Estimate, estimate
from deeprank.settings import Settings
from deeprank.triplets.relevance import coarse_labels

# With this number the ends of the interval vary by less than 0.001 between seeds.
RESAMPLES = 10_000
# Name of the images of another kind among the class groups; a class group with this name cannot be expected.
OTHER_KIND = "images of another kind (evaluate.other)"
State = Literal["promoted", "held", "first-champion", "no-champion", "provisional", "invalid", "refreshed"]


class PromotionSettings(Settings):
    """Conditions for promoting a release.

    Attributes:
        floor: smallest recall@1 of the first champion.
        margin: the lower end of the 95 % interval of the gain must be above it; the gain is in recall@1 over the champion.
        max_class_group_drop: largest drop of recall@1 in a class group (coarse class), or on the images of `evaluate.other`; a larger
            drop that is statistically significant prevents the promotion.
        min_queries: smallest number of test queries, near-duplicates counted once; with fewer the release cannot be tested.
        min_class_group_queries: class groups with fewer queries are not tested.
        training_noise: standard deviation of recall@1 on one test split between trainings that differ in the random seed only,
            beyond what the choice of queries explains. It widens the interval, so that a lucky seed is not promoted. On the
            grocery images it is 0.005 on average (0 to 0.010). With 0 only the choice of queries counts.

    """

    floor: float = Field(0.5, ge=0, le=1)
    margin: float = Field(0.0, ge=0, le=1)
    max_class_group_drop: float = Field(0.05, ge=0, le=1)
    min_queries: int = Field(100, ge=1)
    min_class_group_queries: int = Field(30, ge=1)
    training_noise: float = Field(0.005, ge=0, lt=1)


@dataclass(frozen=True)
class Decision:
    """Whether a release is promoted, and why.

    Attributes:
        state: promoted; held (the gain is too small, or a class group dropped); first-champion (no champion yet, and the floor is
            reached); no-champion (no champion yet, and the floor is not reached); provisional (no champion yet, and the release
            cannot be tested: it is champion until a release can be tested); invalid (there is a champion, and no comparison is
            possible); refreshed (the champion's model with an updated index).
        promoted: whether the challenger becomes the champion.
        reason: a sentence with the numbers.
        gain: of recall@1 per query over the champion, with its 95 % interval, training noise included.
        class_groups: one row per class group tested, largest loss first: class_group, queries, gain, low, high, blocks. The images of
            another kind are a row too, OTHER_KIND.
        inputs: other numbers that the decision is based on, by name.

    """

    state: State
    promoted: bool
    reason: str
    gain: Estimate | None = None
    class_groups: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CLASS_GROUP_COLUMNS))
    inputs: dict[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Return every number by its name in MLflow, such as gate.gain, gate.gain.low, gate.margin or gate.queries."""
        metrics = {f"gate.{name}": float(value) for name, value in self.inputs.items()}
        if self.gain is not None:
            metrics |= {"gate.gain": self.gain.value, "gate.gain.low": self.gain.low, "gate.gain.high": self.gain.high}
            metrics["gate.class_groups"] = float(len(self.class_groups))
            metrics["gate.class_groups_blocking"] = float(self.class_groups["blocks"].sum())
            for row in self.class_groups[self.class_groups["class_group"] == OTHER_KIND].itertuples():
                metrics |= {"gate.other_gain": row.gain, "gate.other_gain.low": row.low, "gate.other_gain.high": row.high}
        return metrics

    def save(self, folder: Path) -> None:
        """Write decision.json and class_groups.csv."""
        folder.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"state": self.state, "promoted": self.promoted, "reason": self.reason}
        content |= {"gain": None if self.gain is None else asdict(self.gain), "metrics": self.metrics()}
        (folder / "decision.json").write_text(json.dumps(content, indent=1))
        self.class_groups.to_csv(folder / "class_groups.csv", index=False)


def decide(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None,
    duplicate_groups: Sequence[int] | Sequence[str] | npt.NDArray[Any],
    settings: PromotionSettings,
    problems: Sequence[str] = (),
    champion_problem: str = "",
    is_provisional: bool = False,
    other_kind: tuple[pd.DataFrame, pd.DataFrame] | None = None,
) -> Decision:
    """Decide whether the challenger becomes the champion.

    Without a champion, a release that reaches the floor becomes champion, and a release that cannot be tested becomes a provisional
    champion. A provisional champion is replaced by the first release that can be tested and is not worse, or, if the provisional
    champion cannot be evaluated, that reaches the floor.

    Args:
        challenger: query table of its evaluation; columns row, label, fine.recall_at_1.
        champion: the same of the champion on the same test split; None where there is no champion, or it cannot be evaluated.
        duplicate_groups: (len(challenger),) near-duplicate group of each query of the challenger.
        settings: the conditions.
        problems: sentences about why the challenger cannot be tested (e.g. a leak between the splits).
        champion_problem: why the champion cannot be evaluated; empty where it was evaluated, or there is none.
        is_provisional: whether the champion is provisional.
        other_kind: query tables of challenger and champion on images of another kind, each query in a duplicate group of its own. They
            are tested as one more class group; the gain is of the test split alone.

    Source: the paired differences of Efron and Tibshirani 1993, chapter 15, resampled in clusters; class groups: see
    `class_group_gains`.

    """
    new_hits = challenger[MAIN_METRIC].to_numpy(dtype=np.float64)
    answerable = ~np.isnan(new_hits)
    queries, distinct = int(answerable.sum()), len(np.unique(np.asarray(duplicate_groups)[answerable]))
    inputs: dict[str, float] = {"queries": queries, "distinct_queries": distinct, "min_queries": settings.min_queries}
    problems = [*problems, *_too_few_queries(queries, distinct, settings)]
    champion_problem = champion_problem or _unequal_queries(challenger, champion)
    has_champion = champion is not None or bool(champion_problem)
    if problems and not has_champion:
        return _provisional_decision(problems, inputs)
    if problems or (champion_problem and not is_provisional):
        return Decision("invalid", False, "; ".join([*problems, *([champion_problem] if champion_problem else [])]), inputs=inputs)
    inputs |= {"recall_at_1": float(np.nanmean(new_hits))}
    if champion is None or champion_problem:
        return _decide_by_floor(inputs, settings, champion_problem)
    return _decide_by_pairs(challenger, champion, duplicate_groups, settings, inputs, is_provisional, other_kind)


def _decide_by_pairs(
    challenger: pd.DataFrame,
    champion: pd.DataFrame,
    duplicate_groups: Sequence[int] | Sequence[str] | npt.NDArray[Any],
    settings: PromotionSettings,
    inputs: dict[str, float],
    is_provisional: bool,
    other_kind: tuple[pd.DataFrame, pd.DataFrame] | None,
) -> Decision:
    """Decide by the paired differences of the queries; arguments as of `decide`, `inputs` is completed."""
    difference, old_hits = _paired_difference(challenger, champion)
    group_codes = np.unique(np.asarray(duplicate_groups), return_inverse=True)[1]
    # Both trainings had a random seed, so the noise of the difference is √2 times that of one training.
    noise_std = 2**0.5 * settings.training_noise
    gain = estimate(difference, group_codes, resamples=RESAMPLES, noise_std=noise_std)
    inputs |= {"champion_recall_at_1": float(np.nanmean(old_hits)), "margin": settings.margin, "training_noise": settings.training_noise}
    inputs |= {"gained": int((difference > 0).sum()), "lost": int((difference < 0).sum())}
    inputs |= {"max_class_group_drop": settings.max_class_group_drop}
    class_groups = coarse_labels(challenger["label"].tolist())
    if other_kind is not None:
        other_difference, _ = _paired_difference(*other_kind)
        class_groups += [OTHER_KIND] * len(other_difference)
        difference = np.concatenate([difference, other_difference])
        group_codes = np.concatenate([group_codes, np.arange(len(other_difference))])
    table = class_group_gains(difference, class_groups, group_codes, settings.min_class_group_queries, settings.max_class_group_drop)
    return _decide_by_gain(gain, table, inputs, settings, is_provisional)


def _paired_difference(challenger: pd.DataFrame, champion: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the difference in the hits of each query of the challenger, and the hits of the champion."""
    old_hits = champion.set_index("row")[MAIN_METRIC].loc[challenger["row"]].to_numpy(dtype=np.float64)
    return challenger[MAIN_METRIC].to_numpy(dtype=np.float64) - old_hits, old_hits


def _too_few_queries(queries: int, distinct: int, settings: PromotionSettings) -> list[str]:
    """Return a sentence if the challenger has too few queries to be tested."""
    # The bootstrap draws near-duplicate groups: a hundred frames of one scene count as one query.
    if distinct >= settings.min_queries:
        return []
    without_duplicates = f" ({distinct:,} without near-duplicates)" if distinct < queries else ""
    return [
        f"{queries:,} test queries have an image of their class in the gallery{without_duplicates}, "
        f"promotion.min_queries requires {settings.min_queries:,}"
    ]


def _unequal_queries(challenger: pd.DataFrame, champion: pd.DataFrame | None) -> str:
    """Return a sentence if the champion was evaluated on other queries than the challenger, else an empty text."""
    if champion is None or set(challenger["row"]) == set(champion["row"]):
        return ""
    common = len(set(challenger["row"]) & set(champion["row"]))
    return f"challenger and champion were evaluated on different queries ({common:,} of {len(challenger):,} in common): evaluate both anew"


def _provisional_decision(problems: Sequence[str], inputs: dict[str, float]) -> Decision:
    """Promote the first release although it cannot be tested."""
    reason = (
        f"no champion yet, and this release cannot be tested ({'; '.join(problems)}): "
        "it is the provisional champion until a release can be tested and is not worse"
    )
    return Decision("provisional", True, reason, inputs=inputs)


def _decide_by_floor(inputs: dict[str, float], settings: PromotionSettings, champion_problem: str) -> Decision:
    """Compare with the floor a release without a champion, or with a provisional champion that cannot be evaluated."""
    recall, reaches_floor = inputs["recall_at_1"], inputs["recall_at_1"] >= settings.floor
    inputs = inputs | {"floor": settings.floor}
    result = (
        f"recall@1 {recall:.4f} on {inputs['queries']:,} queries "
        f"{'reaches' if reaches_floor else 'does not reach'} the floor {settings.floor:.4f}"
    )
    if champion_problem:
        reason = f"the champion is provisional and cannot be compared ({champion_problem}): {result}"
        return Decision("promoted" if reaches_floor else "held", reaches_floor, reason, inputs=inputs)
    return Decision("first-champion" if reaches_floor else "no-champion", reaches_floor, f"no champion yet: {result}", inputs=inputs)


def _decide_by_gain(
    gain: Estimate, class_groups: pd.DataFrame, inputs: dict[str, float], settings: PromotionSettings, is_provisional: bool
) -> Decision:
    """Promote if the gain is large enough and no class group blocks.

    The lower end of the gain's interval must exceed the margin; if the champion is provisional, a gain of 0 is enough.
    """
    is_enough, blocking = gain.value >= 0 if is_provisional else gain.low > settings.margin, class_groups[class_groups["blocks"]]
    state: Literal["promoted", "held"] = "promoted" if is_enough and not len(blocking) else "held"
    if is_provisional:
        rule = f"the champion is provisional, and the gain is {'not below' if is_enough else 'below'} 0"
    else:
        rule = f"the lower end is {'above' if is_enough else 'not above'} the margin {settings.margin:.4f}"
    reason = (
        f"{state}: recall@1 {inputs['recall_at_1']:.4f}, champion {inputs['champion_recall_at_1']:.4f}, gain {gain.value:+.4f} "
        f"[{gain.low:+.4f}, {gain.high:+.4f}] on {gain.count:,} queries ({inputs['gained']:,} gained, {inputs['lost']:,} lost); {rule}"
    )
    if len(blocking):
        drops = [f"{r.class_group} ({r.gain:+.3f} [{r.low:+.3f}, {r.high:+.3f}] on {r.queries} queries)" for r in blocking.itertuples()]
        reason += f"; significant drop of more than {settings.max_class_group_drop:.3f} in {', '.join(drops)}"
    else:
        reason += f"; none of {len(class_groups)} class groups has a significant drop of more than {settings.max_class_group_drop:.3f}"
    return Decision(state, state == "promoted", reason, gain, class_groups, inputs)

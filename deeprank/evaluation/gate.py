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

from deeprank.evaluation.evaluation import MAIN_METRIC
from deeprank.evaluation.intervals import CONFIDENCE, Estimate, binomial_interval, estimate
from deeprank.settings import Settings
from deeprank.triplets.relevance import coarse_labels

# Significance level of the sign tests, over all class groups together.
ALPHA = 1 - CONFIDENCE
# With this number the ends of the interval vary by less than 0.001 between seeds.
RESAMPLES = 10_000
State = Literal["promoted", "held", "first-champion", "no-champion", "provisional", "invalid", "refreshed"]
CLASS_GROUP_COLUMNS = ["class_group", "queries", "gain", "low", "high", "blocks"]


class PromotionSettings(Settings):
    """Conditions for promoting a release.

    Attributes:
        floor: smallest recall@1 of the first champion.
        margin: the lower end of the 95 % interval of the gain must be above it; the gain is in recall@1 over the champion.
        max_class_group_drop: largest drop of recall@1 in a class group (coarse class); a larger drop that is statistically
            significant prevents the promotion.
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
        class_groups: one row per class group tested, largest loss first: class_group, queries, gain, low, high, blocks.
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
    return _decide_by_pairs(challenger, champion, duplicate_groups, settings, inputs, is_provisional)


def _decide_by_pairs(
    challenger: pd.DataFrame,
    champion: pd.DataFrame,
    duplicate_groups: Sequence[int] | Sequence[str] | npt.NDArray[Any],
    settings: PromotionSettings,
    inputs: dict[str, float],
    is_provisional: bool,
) -> Decision:
    """Decide by the paired differences of the queries; arguments as of `decide`, `inputs` is completed."""
    new_hits = challenger[MAIN_METRIC].to_numpy(dtype=np.float64)
    old_hits = champion.set_index("row")[MAIN_METRIC].loc[challenger["row"]].to_numpy(dtype=np.float64)
    difference, group_codes = new_hits - old_hits, np.unique(np.asarray(duplicate_groups), return_inverse=True)[1]
    # Both trainings had a random seed, so the noise of the difference is √2 times that of one training.
    noise_std = 2**0.5 * settings.training_noise
    gain = estimate(difference, group_codes, resamples=RESAMPLES, noise_std=noise_std)
    inputs |= {"champion_recall_at_1": float(np.nanmean(old_hits)), "margin": settings.margin, "training_noise": settings.training_noise}
    inputs |= {"gained": int((difference > 0).sum()), "lost": int((difference < 0).sum())}
    inputs |= {"max_class_group_drop": settings.max_class_group_drop}
    table = class_group_gains(difference, coarse_labels(challenger["label"].tolist()), group_codes, settings)
    return _decide_by_gain(gain, table, inputs, settings, is_provisional)


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


def class_group_gains(
    difference: npt.NDArray[np.float64], class_groups: Sequence[str], duplicate_codes: npt.NDArray[np.int64], settings: PromotionSettings
) -> pd.DataFrame:
    """Return the gain in each class group with enough queries, and whether the group blocks: a significant loss above the limit.

    The test is a mid-p sign test over the near-duplicate groups that gained or lost. All class groups together block a
    challenger that is as good as the champion in about 5 % of cases at most.

    Args:
        difference: (n,) challenger minus champion of each query; NaN values are excluded.
        class_groups: (n,) class group of each query.
        duplicate_codes: (n,) near-duplicate group of each query, 0 … m - 1.
        settings: smallest number of queries of a class group, and the largest drop.

    Returns:
        One row per class group, largest loss first: class_group, queries, gain, low, high, blocks.

    Source: Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data"; Tarone 1990, "A modified
    Bonferroni method for discrete data".

    """
    answerable = ~np.isnan(difference)
    difference, duplicate_codes = difference[answerable], duplicate_codes[answerable]
    names, class_codes = np.unique(np.asarray(class_groups)[answerable], return_inverse=True)
    queries = np.bincount(class_codes)
    # One pair per class group and near-duplicate group.
    stride = duplicate_codes.max(initial=0) + 1
    pairs, pair_of_query = np.unique(class_codes * stride + duplicate_codes, return_inverse=True)
    pair_sums, class_of_pair = np.bincount(pair_of_query, weights=difference), pairs // stride
    tested = np.flatnonzero(queries >= settings.min_class_group_queries)
    changed, lost = (np.bincount(class_of_pair[mask], minlength=len(names))[tested] for mask in (pair_sums != 0, pair_sums < 0))
    loss_shares = _loss_share_intervals(lost, changed)
    # Scale from the share of losses among the changed pairs to the gain per query.
    scale = (np.bincount(class_of_pair, weights=np.abs(pair_sums), minlength=len(names)) / np.maximum(queries, 1))[tested]
    low, high = (scale * (1 - 2 * loss_shares[:, end]) for end in (1, 0))
    gain = (np.bincount(class_codes, weights=difference, minlength=len(names)) / np.maximum(queries, 1))[tested]
    blocks = (gain < -settings.max_class_group_drop) & (high < 0)
    columns = (names[tested], queries[tested], gain, low, high, blocks)
    table = pd.DataFrame(dict(zip(CLASS_GROUP_COLUMNS, columns, strict=True)))
    return table.sort_values("gain", kind="stable").reset_index(drop=True)


def _loss_share_intervals(losses: npt.NDArray[np.int64], trials: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return (class groups, 2): the interval of the share of losses among the changed pairs, corrected for multiple tests."""
    # The bootstrap is not used here: with 30 differences, few of them not 0, it blocks an equal challenger in up to 16 % of
    # cases (40 groups, 20 % not 0).
    tail = ALPHA / tarone_comparisons(trials, ALPHA)
    pairs = zip(losses.tolist(), trials.tolist(), strict=True)
    return np.array([binomial_interval(lost, changed, tail) if changed else (0.5, 0.5) for lost, changed in pairs]).reshape(-1, 2)


def tarone_comparisons(trials: npt.NDArray[np.int64], alpha: float) -> int:
    """Return the number by which the significance level is divided, by Tarone's correction for discrete tests.

    Only class groups with enough changed pairs to reach significance at the divided level are counted.

    Args:
        trials: number of changed pairs of each class group.
        alpha: significance level over all class groups together.

    Source: Tarone 1990, "A modified Bonferroni method for discrete data".

    """
    smallest_p = 0.5 ** (trials + 1.0)
    return next((k for k in range(1, len(trials) + 1) if (smallest_p <= alpha / k).sum() <= k), 1)

"""Who becomes the champion, and why, in words."""

import pytest

from deeprank.evaluation.intervals import Estimate
from deeprank.evaluation.promotion import METRIC, PromotionSettings, decide


def metrics(value: float) -> dict[str, Estimate]:
    return {METRIC: Estimate(value, value - 0.1, value + 0.1, 100), "triplet_accuracy": Estimate(0.9, 0.8, 1, 100)}


@pytest.mark.parametrize(("value", "promoted"), [(0.49, False), (0.5, True), (0.9, True), (float("nan"), False)])
def test_the_first_release_needs_the_floor(value: float, promoted: bool) -> None:
    decision = decide(metrics(value), None, PromotionSettings(floor=0.5))
    assert decision.promoted is promoted
    assert ("reaches" if promoted else "does not reach") in decision.reason
    assert "0.5000" in decision.reason


@pytest.mark.parametrize(
    ("new", "old", "margin", "promoted"),
    [(0.8, 0.8, 0, False), (0.801, 0.8, 0, True), (0.79, 0.8, 0, False), (0.84, 0.8, 0.05, False), (0.86, 0.8, 0.05, True)],
)
def test_a_challenger_must_exceed_the_champion_by_more_than_the_margin(new: float, old: float, margin: float, promoted: bool) -> None:
    decision = decide(metrics(new), metrics(old), PromotionSettings(margin=margin))
    assert decision.promoted is promoted
    assert f"{new:.4f}" in decision.reason
    assert f"champion's {old:.4f}" in decision.reason
    assert ("does not exceed" in decision.reason) is not promoted


def test_against_a_champion_the_floor_plays_no_part() -> None:
    assert decide(metrics(0.3), metrics(0.2), PromotionSettings(floor=0.9)).promoted

"""Who becomes the champion, and why, in words and figures; and how often the gate errs."""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.stats import binom

from deeprank.evaluation.evaluation import METRIC
from deeprank.evaluation.gate import Decision, PromotionSettings, comparisons, decide, group_gains

Right = npt.NDArray[np.bool_]


def table(right: npt.NDArray[np.generic], groups: int = 1) -> pd.DataFrame:
    """Return a queries' table; the class groups are of the same size, in order, in two classes each."""
    n = len(right)
    labels = [f"shop/group{i * groups // n}/{i % 2}" for i in range(n)]
    return pd.DataFrame({"row": 10 + np.arange(n), "label": labels, METRIC: right.astype(float)})


def evaluate_gate(
    new: npt.NDArray[np.generic], old: npt.NDArray[np.generic], settings: PromotionSettings | None = None, groups: int = 1
) -> Decision:
    return decide(table(new, groups), table(old, groups), np.arange(len(new)), settings or PromotionSettings())


def models(
    rng: np.random.Generator, n: int, gain: float = 0, luck: float = 0, discordance: float = 0.06, fall: float = 0, groups: int = 1
) -> tuple[Right, Right]:
    """Draw which of n queries challenger and champion get right; luck: standard deviation of each one's true recall@1."""
    true = gain + rng.normal(0, math.sqrt(2) * luck) - fall * (np.arange(n) * groups // n == 0)
    chance, alike = rng.random(n), rng.random(n) < 0.93
    gained, lost = chance < discordance / 2 + np.maximum(true, 0), chance > 1 - discordance / 2 - np.maximum(-true, 0)
    return (alike & ~lost) | gained, (alike & ~gained) | lost


def pattern(n: int, gained: int, lost: int) -> tuple[Right, Right]:
    """Return a challenger and a champion that differ in so many queries, spread over all of them."""
    new, old = np.ones(n, bool), np.ones(n, bool)
    places = np.random.default_rng(0).permutation(n)
    old[places[:gained]], new[places[gained : gained + lost]] = False, False
    return new, old


@pytest.mark.parametrize(("share", "promoted"), [(0.49, False), (0.5, True), (0.9, True)])
def test_the_first_release_needs_the_floor(share: float, promoted: bool) -> None:
    decision = decide(table(np.arange(200) < 200 * share), None, np.arange(200), PromotionSettings(floor=0.5))
    assert (decision.state, decision.promoted, decision.gain) == ("no-champion", promoted, None)
    assert ("does not reach" in decision.reason) is not promoted
    assert f"{share:.4f}" in decision.reason
    assert "0.5000" in decision.reason
    assert decision.figures()["gate.floor"] == 0.5


def test_a_problem_too_few_queries_or_other_queries_make_it_invalid() -> None:
    right, settings = np.ones(120, bool), PromotionSettings()
    leaked = decide(table(right), None, np.arange(120), settings, ["3 test images are in train"])
    few = decide(table(right[:99]), table(right[:99]), np.arange(99), settings)
    unanswerable = decide(table(np.where(np.arange(120) < 21, np.nan, 1)), None, np.arange(120), settings)
    other = decide(table(right), table(right).assign(row=np.arange(120)), np.arange(120), settings)
    scenes = decide(table(right), table(right), np.arange(120) // 2, settings)
    assert "120 queries of the test split can be answered, 60 that are no near-duplicates of each other, 100" in scenes.reason
    for decision, words in ((leaked, "3 test images"), (few, "99 queries"), (unanswerable, "99 queries"), (other, "110 of 120")):
        assert (decision.state, decision.promoted) == ("invalid", False)
        assert words in decision.reason
        assert not any(math.isnan(value) for value in decision.figures().values())


@pytest.mark.parametrize(
    ("gained", "lost", "margin", "state"),
    [(0, 0, 0, "held"), (40, 40, 0, "held"), (40, 30, 0, "held"), (80, 20, 0, "promoted"), (80, 20, 0.05, "held"), (20, 80, 0, "held")],
)
def test_the_lower_end_of_the_gain_must_exceed_the_margin(gained: int, lost: int, margin: float, state: str) -> None:
    decision = evaluate_gate(*pattern(1000, gained, lost), PromotionSettings(margin=margin, max_group_drop=1))
    assert decision.state == state
    assert decision.gain is not None
    assert decision.gain.value == pytest.approx((gained - lost) / 1000)
    assert (decision.gain.low > margin) is decision.promoted is (state == "promoted")
    figures = decision.figures()
    assert (figures["gate.gained"], figures["gate.lost"], figures["gate.queries"]) == (gained, lost, 1000)
    for figure in (f"{decision.gain.value:+.4f}", f"{decision.gain.low:+.4f}", f"{gained} gained", f"{lost} lost", f"margin {margin:.4f}"):
        assert figure in decision.reason


def test_training_noise_widens_the_interval_by_the_luck_of_both() -> None:
    new, old = pattern(1000, 60, 20)
    plain, noisy = (evaluate_gate(new, old, PromotionSettings(training_noise=noise)).gain for noise in (0, 0.01))
    assert plain is not None
    assert noisy is not None
    sampling = np.std(new.astype(float) - old) / math.sqrt(1000)
    assert plain.high - plain.low == pytest.approx(2 * 1.96 * sampling, rel=0.06)
    assert noisy.high - noisy.low == pytest.approx(2 * 1.96 * math.hypot(sampling, math.sqrt(2) * 0.01), rel=0.06)


def test_pairs_are_matched_by_row_and_near_duplicates_count_as_one() -> None:
    new, old = pattern(400, 40, 4)
    settings = PromotionSettings(training_noise=0)
    shuffled = table(old).sample(frac=1, random_state=0)
    straight = evaluate_gate(new, old, settings)
    assert decide(table(new), shuffled, np.arange(400), settings).gain == straight.gain
    names = [f"id{i}" for i in range(400)]
    fours = decide(table(np.repeat(new, 4)), table(np.repeat(old, 4)), np.repeat(names, 4), settings)
    assert fours.gain is not None
    assert straight.gain is not None
    assert fours.gain.high - fours.gain.low == pytest.approx(straight.gain.high - straight.gain.low, rel=0.1)


def test_a_query_without_an_answer_in_the_gallery_counts_for_neither() -> None:
    new, old = pattern(400, 60, 4)
    unknown = np.full(50, np.nan)
    longer = evaluate_gate(np.concatenate([new, unknown]), np.concatenate([old, unknown]))
    assert longer.gain == evaluate_gate(new, old).gain
    assert longer.figures()["gate.recall_at_1"] == pytest.approx(new.mean())


def test_better_on_average_but_a_group_ruined_is_held_and_names_it() -> None:
    rng = np.random.default_rng(0)
    new, old = models(rng, 1200, gain=0.06, fall=0.36, groups=20)
    decision = evaluate_gate(new, old, groups=20)
    assert decision.gain is not None
    assert decision.gain.low > 0
    assert decision.state == "held"
    assert "shop/group0 (-0." in decision.reason
    assert decision.groups.iloc[0][["group", "queries", "blocks"]].tolist() == ["shop/group0", 60, True]
    assert decision.figures()["gate.groups_blocking"] == decision.groups["blocks"].sum() == 1
    assert evaluate_gate(new, old, PromotionSettings(max_group_drop=0.6), groups=20).promoted
    assert evaluate_gate(new, old, PromotionSettings(min_group_queries=61), groups=20).promoted


def test_the_mid_p_sign_test_decides_whether_a_group_blocks() -> None:
    settings = PromotionSettings(max_group_drop=0.05)
    for gained, lost in ((0, 4), (0, 5), (1, 6), (2, 8), (3, 8), (3, 11)):
        new, old = pattern(60, gained, lost)
        found = group_gains(new.astype(float) - old, ["one"] * 60, np.arange(60), settings)
        trials = gained + lost
        mid = binom.sf(lost - 1, trials, 0.5) - binom.pmf(lost, trials, 0.5) / 2
        assert found["blocks"].tolist() == [bool(mid < 0.05)]
        assert found["low"][0] <= found["gain"][0] <= found["high"][0]
    # Certain, but too small a loss.
    new, old = pattern(1000, 0, 40)
    found = group_gains(new.astype(float) - old, ["one"] * 1000, np.arange(1000), settings)
    assert found["high"][0] < 0
    assert not found["blocks"][0]


def test_groups_where_little_moved_do_not_lower_the_level() -> None:
    assert comparisons(np.array([0, 1, 2, 9, 1]), 0.05) == 1
    assert comparisons(np.array([9, 9, 9]), 0.05) == 3
    assert comparisons(np.array([3, 3, 3, 3, 9]), 0.05) == 1
    assert comparisons(np.array([], dtype=np.int64), 0.05) == 1


def test_the_decision_is_kept_with_its_figures(tmp_path: Path) -> None:
    decision = evaluate_gate(*models(np.random.default_rng(0), 600, groups=12), groups=12)
    decision.save(tmp_path)
    kept = json.loads((tmp_path / "decision.json").read_text())
    assert (kept["state"], kept["promoted"], kept["reason"]) == (decision.state, decision.promoted, decision.reason)
    assert kept["figures"] == decision.figures()
    assert kept["gain"]["low"] == decision.figures()["gate.gain.low"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "groups.csv"), decision.groups)
    assert list(decision.groups) == ["group", "queries", "gain", "low", "high", "blocks"]


def test_an_invalid_decision_can_be_kept_too(tmp_path: Path) -> None:
    decide(table(np.ones(5)), None, np.arange(5), PromotionSettings()).save(tmp_path)
    assert json.loads((tmp_path / "decision.json").read_text())["gain"] is None
    assert pd.read_csv(tmp_path / "groups.csv").empty


@pytest.mark.parametrize(
    ("what", "least", "most"),
    [({}, 0, 0.05), ({"luck": 0.005}, 0, 0.05), ({"gain": 0.03}, 0.6, 1), ({"gain": 0.05}, 0.95, 1)],
    ids=["equal", "equal but for the seed", "better by 3 points", "better by 5 points"],
)
def test_how_often_a_challenger_is_promoted(what: dict[str, float], least: float, most: float) -> None:
    rng = np.random.default_rng(1)
    promoted = [evaluate_gate(*models(rng, 1000, **what)).promoted for _ in range(40)]
    assert least <= np.mean(promoted) <= most


@pytest.mark.parametrize("discordance", [0.08, 0.2])
def test_of_40_groups_of_an_equal_model_hardly_one_blocks(discordance: float) -> None:
    rng = np.random.default_rng(2)
    labels, blocked = np.repeat([f"group{i}" for i in range(40)], 30).tolist(), []
    for _ in range(100):
        new, old = models(rng, 1200, discordance=discordance)
        found = group_gains(new.astype(float) - old, labels, np.arange(1200), PromotionSettings())
        blocked.append(found["blocks"].any())
    assert np.mean(blocked) <= 0.07


@pytest.mark.parametrize(("queries", "least"), [(30, 0.75), (60, 0.95)])
def test_a_group_that_falls_by_30_points_is_found(queries: int, least: float) -> None:
    rng, n = np.random.default_rng(3), 12 * queries
    labels, blocked = np.repeat([f"group{i}" for i in range(12)], queries).tolist(), []
    for _ in range(60):
        new, old = models(rng, n, fall=0.3, groups=12)
        found = group_gains(new.astype(float) - old, labels, np.arange(n), PromotionSettings())
        blocked.append(found.loc[found["group"] == "group0", "blocks"].item())
    assert np.mean(blocked) >= least

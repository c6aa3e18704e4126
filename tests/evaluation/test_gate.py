"""The decisions of the promotion gate, their reasons and numbers, and its error rates."""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.stats import binom

from deeprank.evaluation.class_groups import CLASS_GROUP_COLUMNS, class_group_gains, tarone_comparisons
from deeprank.evaluation.evaluation import MAIN_METRIC, empty_evaluation
from deeprank.evaluation.gate import OTHER_KIND, Decision, PromotionSettings, decide

Hits = npt.NDArray[np.bool_]


def query_table(hits: npt.NDArray[np.generic], class_groups: int = 1) -> pd.DataFrame:
    """Return a query table with class groups of equal size, in order, of two classes each."""
    n = len(hits)
    labels = [f"shop/group{i * class_groups // n}/{i % 2}" for i in range(n)]
    return pd.DataFrame({"row": 10 + np.arange(n), "label": labels, MAIN_METRIC: hits.astype(float)})


def evaluate_gate(
    new: npt.NDArray[np.generic], old: npt.NDArray[np.generic], settings: PromotionSettings | None = None, class_groups: int = 1
) -> Decision:
    tables = query_table(new, class_groups), query_table(old, class_groups)
    return decide(*tables, np.arange(len(new)), settings or PromotionSettings())


def draw_hits(
    rng: np.random.Generator,
    n: int,
    gain: float = 0,
    seed_std: float = 0,
    discordance: float = 0.06,
    drop: float = 0,
    class_groups: int = 1,
) -> tuple[Hits, Hits]:
    """Draw which of n queries challenger and champion answer correctly.

    Args:
        rng: source of randomness.
        n: number of queries.
        gain: true gain of recall@1.
        seed_std: standard deviation of the true recall@1 of each model between training seeds.
        discordance: share of queries that only one of two equal models answers correctly.
        drop: of recall@1 in the first class group.
        class_groups: number of class groups of equal size.

    """
    true_gain = gain + rng.normal(0, math.sqrt(2) * seed_std) - drop * (np.arange(n) * class_groups // n == 0)
    chance, common_hit = rng.random(n), rng.random(n) < 0.93
    gained, lost = chance < discordance / 2 + np.maximum(true_gain, 0), chance > 1 - discordance / 2 - np.maximum(-true_gain, 0)
    return (common_hit & ~lost) | gained, (common_hit & ~gained) | lost


def hits_with(n: int, gained: int, lost: int) -> tuple[Hits, Hits]:
    """Return the hits of a challenger and a champion that differ in the given numbers of queries, at random positions."""
    new, old = np.ones(n, bool), np.ones(n, bool)
    positions = np.random.default_rng(0).permutation(n)
    old[positions[:gained]], new[positions[gained : gained + lost]] = False, False
    return new, old


@pytest.mark.parametrize(("share", "promoted"), [(0.49, False), (0.5, True), (0.9, True)])
def test_the_first_release_needs_the_floor(share: float, promoted: bool) -> None:
    decision = decide(query_table(np.arange(200) < 200 * share), None, np.arange(200), PromotionSettings(floor=0.5))
    assert (decision.state, decision.promoted, decision.gain) == ("first-champion" if promoted else "no-champion", promoted, None)
    assert ("does not reach" in decision.reason) is not promoted
    assert f"{share:.4f}" in decision.reason
    assert "0.5000" in decision.reason
    assert decision.metrics()["gate.floor"] == 0.5


def test_problems_and_unequal_queries_make_a_decision_invalid() -> None:
    hits, settings = np.ones(120, bool), PromotionSettings()
    with_problem = decide(query_table(hits), query_table(hits), np.arange(120), settings, ["3 test images are in train"])
    too_few = decide(query_table(hits[:99]), query_table(hits[:99]), np.arange(99), settings)
    some_unanswerable = query_table(np.where(np.arange(120) < 21, np.nan, 1))
    unanswerable = decide(some_unanswerable, some_unanswerable, np.arange(120), settings)
    unloadable = decide(query_table(hits), None, np.arange(120), settings, champion_problem="the champion cannot be loaded")
    other = decide(query_table(hits), query_table(hits).assign(row=np.arange(120)), np.arange(120), settings)
    duplicates = decide(query_table(hits), query_table(hits), np.arange(120) // 2, settings)
    assert "120 test queries have an image of their class in the gallery (60 without near-duplicates), " in duplicates.reason
    assert "promotion.min_queries requires 100" in duplicates.reason
    for decision, text in (
        (with_problem, "3 test images"),
        (too_few, "99 test queries"),
        (unanswerable, "99 test queries"),
        (unloadable, "the champion cannot be loaded"),
        (other, "110 of 120"),
    ):
        assert (decision.state, decision.promoted) == ("invalid", False)
        assert text in decision.reason
        assert not any(math.isnan(value) for value in decision.metrics().values())


def test_a_first_release_that_cannot_be_tested_is_provisional() -> None:
    hits, settings = np.ones(120, bool), PromotionSettings()
    for decision, text in (
        (decide(query_table(hits), None, np.arange(120), settings, ["3 test images are in train"]), "3 test images are in train"),
        (decide(query_table(hits[:99]), None, np.arange(99), settings), "99 test queries"),
        (decide(query_table(np.full(120, np.nan)), None, np.arange(120), settings), "0 test queries"),
        (decide(empty_evaluation().queries, None, np.arange(0), settings), "0 test queries"),
    ):
        assert (decision.state, decision.promoted, decision.gain) == ("provisional", True, None)
        assert decision.reason.startswith("no champion yet, and this release cannot be tested (")
        assert text in decision.reason
        assert not any(math.isnan(value) for value in decision.metrics().values())


@pytest.mark.parametrize(("gained", "lost", "state"), [(0, 0, "promoted"), (41, 40, "promoted"), (40, 41, "held"), (20, 80, "held")])
def test_a_provisional_champion_is_replaced_by_one_not_worse(gained: int, lost: int, state: str) -> None:
    new, old = (query_table(hits) for hits in hits_with(1000, gained, lost))
    decision = decide(new, old, np.arange(1000), PromotionSettings(max_class_group_drop=1), is_provisional=True)
    assert (decision.state, decision.promoted) == (state, state == "promoted")
    assert f"the champion is provisional, and the gain is {'not below' if decision.promoted else 'below'} 0" in decision.reason


def test_a_drop_in_a_class_group_protects_a_provisional_champion() -> None:
    new, old = draw_hits(np.random.default_rng(0), 1200, gain=0.06, drop=0.36, class_groups=20)
    decision = decide(query_table(new, 20), query_table(old, 20), np.arange(1200), PromotionSettings(), is_provisional=True)
    assert decision.gain is not None
    assert decision.gain.value > 0
    assert (decision.state, decision.promoted) == ("held", False)


def test_a_release_that_cannot_be_tested_replaces_no_champion() -> None:
    table = query_table(np.ones(99, bool))
    decision = decide(table, table, np.arange(99), PromotionSettings(), is_provisional=True)
    assert (decision.state, decision.promoted) == ("invalid", False)


@pytest.mark.parametrize(("share", "state"), [(0.49, "held"), (0.5, "promoted")])
def test_the_floor_decides_where_a_provisional_one_is_unusable(share: float, state: str) -> None:
    new = query_table(np.arange(200) < 200 * share)
    other_queries = new.assign(row=np.arange(200))
    for champion, problem, text in ((None, "it cannot be loaded", "it cannot be loaded"), (other_queries, "", "190 of 200 in common")):
        decision = decide(new, champion, np.arange(200), PromotionSettings(floor=0.5), (), problem, is_provisional=True)
        assert (decision.state, decision.promoted, decision.gain) == (state, state == "promoted", None)
        assert decision.reason.startswith("the champion is provisional and cannot be compared (")
        assert text in decision.reason
        assert decision.metrics()["gate.floor"] == 0.5


@pytest.mark.parametrize(
    ("gained", "lost", "margin", "state"),
    [(0, 0, 0, "held"), (40, 40, 0, "held"), (40, 30, 0, "held"), (80, 20, 0, "promoted"), (80, 20, 0.05, "held"), (20, 80, 0, "held")],
)
def test_the_lower_end_of_the_gain_must_exceed_the_margin(gained: int, lost: int, margin: float, state: str) -> None:
    decision = evaluate_gate(*hits_with(1000, gained, lost), PromotionSettings(margin=margin, max_class_group_drop=1))
    assert decision.state == state
    assert decision.gain is not None
    assert decision.gain.value == pytest.approx((gained - lost) / 1000)
    assert (decision.gain.low > margin) is decision.promoted is (state == "promoted")
    metrics = decision.metrics()
    assert (metrics["gate.gained"], metrics["gate.lost"], metrics["gate.queries"]) == (gained, lost, 1000)
    for text in (f"{decision.gain.value:+.4f}", f"{decision.gain.low:+.4f}", f"{gained} gained", f"{lost} lost", f"margin {margin:.4f}"):
        assert text in decision.reason


def test_training_noise_of_both_models_widens_the_interval() -> None:
    new, old = hits_with(1000, 60, 20)
    without_noise, with_noise = (evaluate_gate(new, old, PromotionSettings(training_noise=noise)).gain for noise in (0, 0.01))
    assert without_noise is not None
    assert with_noise is not None
    standard_error = np.std(new.astype(float) - old) / math.sqrt(1000)
    assert without_noise.high - without_noise.low == pytest.approx(2 * 1.96 * standard_error, rel=0.06)
    assert with_noise.high - with_noise.low == pytest.approx(2 * 1.96 * math.hypot(standard_error, math.sqrt(2) * 0.01), rel=0.06)


def test_pairs_match_by_row_and_near_duplicates_count_once() -> None:
    new, old = hits_with(400, 40, 4)
    settings = PromotionSettings(training_noise=0)
    shuffled = query_table(old).sample(frac=1, random_state=0)
    decision = evaluate_gate(new, old, settings)
    assert decide(query_table(new), shuffled, np.arange(400), settings).gain == decision.gain
    names = [f"id{i}" for i in range(400)]
    repeated = decide(query_table(np.repeat(new, 4)), query_table(np.repeat(old, 4)), np.repeat(names, 4), settings)
    assert repeated.gain is not None
    assert decision.gain is not None
    assert repeated.gain.high - repeated.gain.low == pytest.approx(decision.gain.high - decision.gain.low, rel=0.1)


def test_a_query_without_its_class_in_the_gallery_is_excluded() -> None:
    new, old = hits_with(400, 60, 4)
    unknown = np.full(50, np.nan)
    with_unknown = evaluate_gate(np.concatenate([new, unknown]), np.concatenate([old, unknown]))
    assert with_unknown.gain == evaluate_gate(new, old).gain
    assert with_unknown.metrics()["gate.recall_at_1"] == pytest.approx(new.mean())


def test_a_large_drop_in_one_class_group_blocks_and_is_named() -> None:
    rng = np.random.default_rng(0)
    new, old = draw_hits(rng, 1200, gain=0.06, drop=0.36, class_groups=20)
    decision = evaluate_gate(new, old, class_groups=20)
    assert decision.gain is not None
    assert decision.gain.low > 0
    assert decision.state == "held"
    assert "shop/group0 (-0." in decision.reason
    assert decision.class_groups.iloc[0][["class_group", "queries", "blocks"]].tolist() == ["shop/group0", 60, True]
    assert decision.metrics()["gate.class_groups_blocking"] == decision.class_groups["blocks"].sum() == 1
    assert evaluate_gate(new, old, PromotionSettings(max_class_group_drop=0.6), class_groups=20).promoted
    assert evaluate_gate(new, old, PromotionSettings(min_class_group_queries=61), class_groups=20).promoted


def test_the_mid_p_sign_test_decides_if_a_class_group_blocks() -> None:
    for gained, lost in ((0, 4), (0, 5), (1, 6), (2, 8), (3, 8), (3, 11)):
        new, old = hits_with(60, gained, lost)
        gains = class_group_gains(new.astype(float) - old, ["one"] * 60, np.arange(60), 30, 0.05)
        trials = gained + lost
        mid_p = binom.sf(lost - 1, trials, 0.5) - binom.pmf(lost, trials, 0.5) / 2
        assert gains["blocks"].tolist() == [bool(mid_p < 0.05)]
        assert gains["low"][0] <= gains["gain"][0] <= gains["high"][0]
    # A significant loss below the limit does not block.
    new, old = hits_with(1000, 0, 40)
    gains = class_group_gains(new.astype(float) - old, ["one"] * 1000, np.arange(1000), 30, 0.05)
    assert gains["high"][0] < 0
    assert not gains["blocks"][0]


def test_tarone_counts_only_groups_that_can_be_significant() -> None:
    assert tarone_comparisons(np.array([0, 1, 2, 9, 1]), 0.05) == 1
    assert tarone_comparisons(np.array([9, 9, 9]), 0.05) == 3
    assert tarone_comparisons(np.array([3, 3, 3, 3, 9]), 0.05) == 1
    assert tarone_comparisons(np.array([], dtype=np.int64), 0.05) == 1


def test_images_of_another_kind_are_one_more_class_group() -> None:
    new, old = hits_with(1000, 80, 20)
    tables, settings = (query_table(new, 4), query_table(old, 4)), PromotionSettings()
    without = decide(*tables, np.arange(1000), settings)
    assert without.promoted
    assert "gate.other_gain" not in without.metrics()
    worse, equal = (tuple(query_table(hits) for hits in hits_with(200, gained, lost)) for gained, lost in ((2, 22), (12, 10)))
    shuffled = (worse[0], worse[1].sample(frac=1, random_state=0))
    for other, promoted in ((worse, False), (shuffled, False), (equal, True)):
        decision = decide(*tables, np.arange(1000), settings, other_kind=other)
        metrics = decision.metrics()
        assert (decision.gain, decision.promoted) == (without.gain, promoted)
        assert metrics["gate.class_groups"] == without.metrics()["gate.class_groups"] + 1
        assert metrics["gate.other_gain"] == pytest.approx(other[0][MAIN_METRIC].mean() - other[1][MAIN_METRIC].mean())
        assert metrics["gate.other_gain.low"] < metrics["gate.other_gain"] < metrics["gate.other_gain.high"]
        assert (f"in {OTHER_KIND} (-0.100 [" in decision.reason) is not promoted
    few = tuple(table.head(29) for table in worse)
    assert decide(*tables, np.arange(1000), settings, other_kind=few).class_groups.equals(without.class_groups)


def test_the_level_of_significance_is_shared_with_another_kind() -> None:
    new, old = hits_with(1000, 40, 40)
    tables, lost = (query_table(new, 4), query_table(old, 4)), hits_with(60, 0, 6)
    alone = class_group_gains(lost[0].astype(float) - lost[1], ["one"] * 60, np.arange(60), 30, 0.05)
    together = decide(*tables, np.arange(1000), PromotionSettings(), other_kind=(query_table(lost[0]), query_table(lost[1])))
    (row,) = together.class_groups[together.class_groups["class_group"] == OTHER_KIND].itertuples()
    assert (row.queries, row.gain) == (60, pytest.approx(-0.1))
    assert alone["blocks"].tolist() == [True]
    assert row.high > alone["high"][0]


def test_a_decision_is_saved_with_its_metrics(tmp_path: Path) -> None:
    decision = evaluate_gate(*draw_hits(np.random.default_rng(0), 600, class_groups=12), class_groups=12)
    decision.save(tmp_path)
    saved = json.loads((tmp_path / "decision.json").read_text())
    assert (saved["state"], saved["promoted"], saved["reason"]) == (decision.state, decision.promoted, decision.reason)
    assert saved["metrics"] == decision.metrics()
    assert saved["gain"]["low"] == decision.metrics()["gate.gain.low"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "class_groups.csv"), decision.class_groups)
    assert list(decision.class_groups) == CLASS_GROUP_COLUMNS == ["class_group", "queries", "gain", "low", "high", "blocks"]


def test_an_invalid_decision_can_be_saved(tmp_path: Path) -> None:
    decide(query_table(np.ones(5)), None, np.arange(5), PromotionSettings()).save(tmp_path)
    assert json.loads((tmp_path / "decision.json").read_text())["gain"] is None
    assert pd.read_csv(tmp_path / "class_groups.csv").empty


@pytest.mark.parametrize(
    ("case", "lowest", "highest"),
    [({}, 0, 0.05), ({"seed_std": 0.005}, 0, 0.05), ({"gain": 0.03}, 0.6, 1), ({"gain": 0.05}, 0.95, 1)],
    ids=["equal", "equal except for the seed", "better by 3 points", "better by 5 points"],
)
def test_the_rate_of_promotions(case: dict[str, float], lowest: float, highest: float) -> None:
    rng = np.random.default_rng(1)
    promoted = [evaluate_gate(*draw_hits(rng, 1000, **case)).promoted for _ in range(40)]
    assert lowest <= np.mean(promoted) <= highest


@pytest.mark.parametrize("discordance", [0.08, 0.2])
def test_class_groups_of_an_equal_model_rarely_block(discordance: float) -> None:
    rng = np.random.default_rng(2)
    labels, blocked = np.repeat([f"group{i}" for i in range(40)], 30).tolist(), []
    for _ in range(100):
        new, old = draw_hits(rng, 1200, discordance=discordance)
        gains = class_group_gains(new.astype(float) - old, labels, np.arange(1200), 30, 0.05)
        blocked.append(gains["blocks"].any())
    assert np.mean(blocked) <= 0.07


@pytest.mark.parametrize(("queries", "lowest"), [(30, 0.75), (60, 0.95)])
def test_a_class_group_that_drops_by_30_points_blocks(queries: int, lowest: float) -> None:
    rng, n = np.random.default_rng(3), 12 * queries
    labels, blocked = np.repeat([f"group{i}" for i in range(12)], queries).tolist(), []
    for _ in range(60):
        new, old = draw_hits(rng, n, drop=0.3, class_groups=12)
        gains = class_group_gains(new.astype(float) - old, labels, np.arange(n), 30, 0.05)
        blocked.append(gains.loc[gains["class_group"] == "group0", "blocks"].item())
    assert np.mean(blocked) >= lowest

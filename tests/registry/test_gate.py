"""The gate compares a new model with the registered champion on the same queries."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deeprank.checksums import write_manifest
from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.bundle_evaluation import embed_and_evaluate
from deeprank.evaluation.evaluation import empty_evaluation
from deeprank.evaluation.gate import OTHER_KIND, Decision, PromotionSettings, decide
from deeprank.evaluation.other_kind import evaluate_other_kind
from deeprank.models.bundle import Bundle
from deeprank.registry.champion import is_provisional_champion
from deeprank.registry.gate import evaluate_gate
from deeprank.registry.register import RegisterSettings
from deeprank.registry.releases import fetch_release, find_version
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets
from tests.conftest import save_untrained
from tests.registry_fixtures import NAME, Store, gate_decision, register_release

LENIENT = PromotionSettings(floor=0, min_queries=1)


def test_first_release_is_compared_with_the_floor_only(
    store: Store, catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    evaluation = embed_and_evaluate(catalogue, triplets, bundle, "model")
    record = Record(tmp_path)
    decision = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name="nobody", promotion=LENIENT), record)
    assert (decision.state, decision.promoted) == ("first-champion", True)
    assert (record.notes["gate.state"], record.notes["gate.champion_before"]) == ("first-champion", "none")
    assert not record.figures


def test_champion_is_evaluated_on_the_current_queries(store: Store, catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    other = save_untrained(tmp_path / "other", seed=8)
    evaluation = embed_and_evaluate(catalogue, triplets, other, "model")
    champion = embed_and_evaluate(catalogue, triplets, Bundle(store.folders[2] / "bundle"), "champion")
    record = Record(tmp_path / "record")
    decision = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name=NAME, promotion=LENIENT), record)
    difference = evaluation.queries["fine.recall_at_1"] - champion.queries["fine.recall_at_1"]
    assert decision.gain is not None
    assert decision.gain.value == pytest.approx(difference.mean())
    assert {point.name: point.value for point in record.points}["gate.lost"] == (difference < 0).sum()
    assert record.notes["gate.champion_before"] == "3"
    assert set(record.figures) == {"gained_and_lost"}


def test_champion_is_evaluated_on_images_of_another_kind(store: Store, catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    model = save_untrained(tmp_path / "model", seed=8)
    # The images of the catalogue stand for those of another kind.
    new, old = (evaluate_other_kind(catalogue, bundle, "model").queries for bundle in (model, Bundle(store.folders[2] / "bundle")))
    evaluation = replace(embed_and_evaluate(catalogue, triplets, model, "model"), other_queries=new)
    settings, record = RegisterSettings(name=NAME, promotion=LENIENT), Record(tmp_path / "record")
    decision = evaluate_gate(catalogue, triplets, evaluation, settings, record, other=catalogue)
    reported = {point.name: point.value for point in record.points}
    assert reported["gate.other_gain"] == pytest.approx((new["fine.recall_at_1"] - old["fine.recall_at_1"]).mean())
    assert OTHER_KIND in decision.class_groups["class_group"].tolist()
    first = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name="nobody", promotion=LENIENT), record, other=catalogue)
    assert "gate.other_gain" not in first.metrics()


def test_unreadable_champion_makes_the_comparison_invalid(
    store: Store, catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    register_release(store, "damaged", gate_decision(0.9, None), catalogue, store.folders[1])
    weights = fetch_release(find_version("damaged", "1")) / "bundle" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    evaluation = embed_and_evaluate(catalogue, triplets, bundle, "model")
    decision = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name="damaged", promotion=LENIENT), Record(tmp_path))
    assert (decision.state, decision.promoted) == ("invalid", False)
    assert "the champion, version 1, cannot be loaded" in decision.reason


def test_champion_of_an_older_format_is_named_as_such(
    store: Store, catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    register_release(store, "ancient", gate_decision(0.9, None), catalogue)
    config = fetch_release(find_version("ancient", "1")) / "bundle" / "config.json"
    facts = json.loads(config.read_text())
    del facts["checksum"]
    write_manifest(config, facts | {"format": 1})
    evaluation = embed_and_evaluate(catalogue, triplets, bundle, "model")
    decision = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name="ancient", promotion=LENIENT), Record(tmp_path))
    assert (decision.state, decision.promoted) == ("invalid", False)
    assert "version 1 of ancient was made by an older version of deeprank: config.json has format 1, this version reads" in decision.reason
    assert "`deeprank promote VERSION --force`" in decision.reason


def test_a_provisional_champion_is_replaced_by_an_equal_model(
    store: Store, catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    provisional = decide(empty_evaluation().queries, None, [], PromotionSettings())
    refreshed = Decision("refreshed", True, "its index")
    for name, decisions in (("early", [provisional]), ("early-refreshed", [provisional, refreshed, refreshed])):
        for decision in decisions:
            register_release(store, name, decision, catalogue)
        assert is_provisional_champion(name)
        evaluation = embed_and_evaluate(catalogue, triplets, bundle, "model")
        record = Record(tmp_path / name)
        decision = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name=name, promotion=LENIENT), record)
        assert (decision.state, decision.promoted) == ("promoted", True)
        assert "the champion is provisional, and the gain is not below 0" in record.notes["gate.reason"]
        register_release(store, name, decision, catalogue)
        assert not is_provisional_champion(name)
        assert evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name=name, promotion=LENIENT), record).state == "held"
    assert not is_provisional_champion("nobody")


def test_a_release_without_queries_leaves_the_champion(
    store: Store, catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    without_test = Catalogue(catalogue.uri, catalogue.version)
    without_test.__dict__["frame"] = catalogue.frame.assign(split="train")
    record, settings = Record(tmp_path / "record"), RegisterSettings(name=NAME, promotion=LENIENT)
    drawn = sample_triplets(without_test.frame, SampleSettings())
    decision = evaluate_gate(without_test, drawn, empty_evaluation(), settings, record)
    assert (decision.state, decision.promoted) == ("invalid", False)
    assert "0 test queries" in decision.reason
    assert not record.figures

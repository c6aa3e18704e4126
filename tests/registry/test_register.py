"""A release in a real registry: judged, written as one version with its facts, made champion where it is better."""

import json
import warnings
from pathlib import Path

import lance
import mlflow
import pytest
from pydantic import ValidationError

from deeprank.checksums import hash_file
from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.bundle_evaluation import embed_and_evaluate
from deeprank.evaluation.gate import PromotionSettings
from deeprank.models.bundle import Bundle
from deeprank.registry.register import DESCRIPTION, RegisterSettings, _description, evaluate_gate, register
from deeprank.registry.releases import fetch, find
from deeprank.reporting import Record
from deeprank.triplets.sampling import Triplets
from tests.conftest import save_untrained
from tests.serving.conftest import NAME, Store, decision

FEW = PromotionSettings(floor=0, min_queries=1)


def test_each_release_is_the_next_version(store: Store) -> None:
    assert [(one.name, one.version) for one in store.registered] == [(NAME, 1), (NAME, 2), (NAME, 3)]


def test_the_first_above_the_floor_and_each_better_one_become_champion(store: Store) -> None:
    assert [one.decision.state for one in store.registered] == ["no-champion", "held", "promoted"]
    assert [one.aliases for one in store.registered] == [("challenger", "champion"), ("challenger",), ("challenger", "champion")]


def test_a_first_release_below_the_floor_is_registered_and_held(store: Store, catalogue: Catalogue) -> None:
    with mlflow.start_run(experiment_id=store.experiment):
        registered = register(store.folders[1], RegisterSettings(name="too-weak"), decision(0.3, None), catalogue, "card")
    assert (registered.version, registered.aliases, registered.decision.promoted) == (1, ("challenger",), False)
    assert find("too-weak", "champion") is None
    assert find("too-weak", "challenger") is not None


def test_a_version_keeps_the_decision_and_its_figures_as_tags_and_as_a_file(store: Store, catalogue: Catalogue) -> None:
    found = [find(NAME, str(number)) for number in (1, 2, 3)]
    assert [version.tags["gate.state"] for version in found] == ["no-champion", "held", "promoted"]
    assert [version.tags["gate.reason"] for version in found] == [one.decision.reason for one in store.registered]
    assert {version.tags["catalogue.fingerprint"] for version in found} == {catalogue.fingerprint}
    assert [version.tags["fine.recall_at_1"] for version in found] == ["0.6000", "0.5500", "0.7000"]
    assert [version.tags["weights"] for version in found] == [Bundle(folder / "bundle").weights_hash for folder in store.folders]
    assert float(found[2].tags["gate.gain"]) == pytest.approx(0.1)
    assert [version.description for version in found] == ["card 1", "card 2", "card 3"]
    kept = json.loads((fetch(found[2]) / "gate" / "decision.json").read_text())
    assert (fetch(found[2]) / "gate" / "model_card.md").read_text() == "card 3"
    assert (kept["state"], kept["reason"]) == ("promoted", store.registered[2].decision.reason)


def test_a_release_pins_its_catalogue(store: Store, catalogue: Catalogue) -> None:
    tags = lance.dataset(catalogue.uri).tags.list()
    assert {tags[f"{NAME}-{number}"]["version"] for number in (1, 2, 3)} == {catalogue.version}


def test_what_was_registered_is_json(store: Store, tmp_path: Path) -> None:
    store.registered[1].save(tmp_path / "release.json")
    reason = store.registered[1].decision.reason
    facts = {"name": NAME, "version": 2, "aliases": ["challenger"], "state": "held", "reason": reason}
    assert json.loads((tmp_path / "release.json").read_text()) == facts


@pytest.mark.parametrize("name", ["", "two words", "a/b", "a'b"])
def test_a_name_that_would_not_fit_into_a_model_address_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        RegisterSettings(name=name)


def test_a_release_can_be_registered_again_without_touching_it_and_without_a_warning(store: Store, catalogue: Catalogue) -> None:
    def contents() -> dict[str, str]:
        return {str(file): hash_file(file) for file in store.folders[0].rglob("*") if file.is_file()}

    before = contents()
    with mlflow.start_run(experiment_id=store.experiment), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        register(store.folders[0], RegisterSettings(name="again"), store.registered[0].decision, catalogue, "card 1")
    assert contents() == before


def test_the_gate_of_a_first_release_looks_at_the_floor_alone(
    store: Store, catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    evaluation = embed_and_evaluate(catalogue, triplets, bundle, "net")
    record = Record(tmp_path)
    found = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name="nobody", promotion=FEW), record)
    assert (found.state, found.promoted) == ("no-champion", True)
    assert (record.notes["gate.state"], record.notes["gate.champion_before"]) == ("no-champion", "none")
    assert not record.figures


def test_the_champion_answers_todays_queries_query_by_query(store: Store, catalogue: Catalogue, triplets: Triplets, tmp_path: Path) -> None:
    other = save_untrained(tmp_path / "other", seed=8)
    evaluation = embed_and_evaluate(catalogue, triplets, other, "net")
    champion = embed_and_evaluate(catalogue, triplets, Bundle(store.folders[2] / "bundle"), "champion")
    record = Record(tmp_path / "record")
    found = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name=NAME, promotion=FEW), record)
    difference = evaluation.queries["fine.recall_at_1"] - champion.queries["fine.recall_at_1"]
    assert found.gain is not None
    assert found.gain.value == pytest.approx(difference.mean())
    assert {point.name: point.value for point in record.points}["gate.lost"] == (difference < 0).sum()
    assert record.notes["gate.champion_before"] == "3"
    assert set(record.figures) == {"gained_and_lost"}


def test_a_champion_that_cannot_be_loaded_makes_the_comparison_invalid(
    store: Store, catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    with mlflow.start_run(experiment_id=store.experiment):
        register(store.folders[1], RegisterSettings(name="damaged"), decision(0.9, None), catalogue, "card")
    release = fetch(find("damaged", "1")) / "bundle" / "model.safetensors"
    release.write_bytes(release.read_bytes()[:-1] + b"\0")
    evaluation = embed_and_evaluate(catalogue, triplets, bundle, "net")
    found = evaluate_gate(catalogue, triplets, evaluation, RegisterSettings(name="damaged", promotion=FEW), Record(tmp_path))
    assert (found.state, found.promoted) == ("invalid", False)
    assert "the champion, version 1, cannot be loaded" in found.reason


def test_a_description_is_no_longer_than_a_database_keeps() -> None:
    lines = "\n".join(f"| parameter.{number} | {number} |" for number in range(400))
    kept = _description(lines)
    assert 0.9 * DESCRIPTION < len(kept) <= DESCRIPTION
    assert kept.endswith("gate/model_card.md of this release.")
    assert set(kept.splitlines()[:-2]) <= set(lines.splitlines())
    assert _description("card") == "card"

"""A release is registered as one model version with its facts, and becomes champion if the gate promotes it."""

import json
import shutil
import warnings
from pathlib import Path

import lance
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from deeprank.checksums import hash_file
from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.evaluation import empty_evaluation
from deeprank.evaluation.gate import PromotionSettings, decide
from deeprank.models.bundle import Bundle
from deeprank.registry.register import MAX_DESCRIPTION_CHARS, RegisterSettings, _shorten_card, register
from deeprank.registry.releases import fetch_release, find_version, list_versions
from tests.registry_fixtures import NAME, Store, gate_decision, register_release


def test_each_release_is_the_next_version(store: Store) -> None:
    assert [(release.name, release.version) for release in store.registered] == [(NAME, 1), (NAME, 2), (NAME, 3)]


def test_promoted_releases_become_champion(store: Store) -> None:
    assert [release.decision.state for release in store.registered] == ["first-champion", "held", "promoted"]
    assert [release.aliases for release in store.registered] == [("challenger", "champion"), ("challenger",), ("challenger", "champion")]


def test_first_release_below_the_floor_is_not_champion(store: Store, catalogue: Catalogue) -> None:
    registered = register_release(store, "too-weak", gate_decision(0.3, None), catalogue, store.folders[1])
    assert (registered.version, registered.aliases, registered.decision.promoted) == (1, ("challenger",), False)
    assert find_version("too-weak", "champion") is None
    assert find_version("too-weak", "challenger") is not None


def test_a_release_without_metrics_becomes_provisional_champion(store: Store, catalogue: Catalogue, tmp_path: Path) -> None:
    folder = shutil.copytree(store.folders[0], tmp_path / "release", ignore=shutil.ignore_patterns("evaluation"))
    empty_evaluation().save(folder / "evaluation")
    decision = decide(empty_evaluation().queries, None, [], PromotionSettings())
    assert register_release(store, "untested", decision, catalogue, folder).aliases == ("challenger", "champion")
    (row,) = list_versions("untested")
    assert (row.gate_state, row.aliases) == ("provisional", "challenger, champion")
    assert row.gate_reason.startswith("no champion yet, and this release cannot be tested (0 test queries")
    assert np.isnan(row.recall_at_1)


def test_version_has_the_decision_as_tags_and_file(store: Store, catalogue: Catalogue) -> None:
    versions = [find_version(NAME, str(number)) for number in (1, 2, 3)]
    assert [version.tags["gate.state"] for version in versions] == ["first-champion", "held", "promoted"]
    assert [version.tags["gate.reason"] for version in versions] == [release.decision.reason for release in store.registered]
    assert {version.tags["catalogue.fingerprint"] for version in versions} == {catalogue.fingerprint}
    assert [version.tags["fine.recall_at_1"] for version in versions] == ["0.6000", "0.5500", "0.7000"]
    assert [version.tags["model.weights_hash"] for version in versions] == [
        Bundle(folder / "bundle").weights_hash for folder in store.folders
    ]
    assert float(versions[2].tags["gate.gain"]) == pytest.approx(0.1)
    assert [version.description for version in versions] == ["card 1", "card 2", "card 3"]
    saved = json.loads((fetch_release(versions[2]) / "gate" / "decision.json").read_text())
    assert (fetch_release(versions[2]) / "gate" / "model_card.md").read_text() == "card 3"
    assert (saved["state"], saved["reason"]) == ("promoted", store.registered[2].decision.reason)


def test_release_pins_its_catalogue(store: Store, catalogue: Catalogue) -> None:
    tags = lance.dataset(catalogue.uri).tags.list()
    runs = [find_version(NAME, str(number)).run_id for number in (1, 2, 3)]
    assert {tags[f"{NAME}-{run_id}"]["version"] for run_id in runs} == {catalogue.version}


def test_a_repeated_registration_takes_up_the_version(store: Store, catalogue: Catalogue) -> None:
    client, settings = MlflowClient(), RegisterSettings(name="interrupted")
    with mlflow.start_run(experiment_id=store.experiment):
        first = register(store.folders[0], settings, store.registered[0].decision, catalogue, "card")
        # As if the process had been killed before it set the aliases.
        for alias in ("challenger", "champion"):
            client.delete_registered_model_alias("interrupted", alias)
        second = register(store.folders[0], settings, store.registered[0].decision, catalogue, "card")
    assert (first.version, second.version, len(list_versions("interrupted"))) == (1, 1, 1)
    assert find_version("interrupted", "champion").tags["gate.state"] == "first-champion"


def test_registered_release_is_saved_as_json(store: Store, tmp_path: Path) -> None:
    store.registered[1].save(tmp_path / "release.json")
    reason = store.registered[1].decision.reason
    facts = {"name": NAME, "version": 2, "aliases": ["challenger"], "state": "held", "reason": reason}
    assert json.loads((tmp_path / "release.json").read_text()) == facts


@pytest.mark.parametrize("name", ["", "two words", "a/b", "a'b"])
def test_name_that_does_not_fit_a_model_uri_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        RegisterSettings(name=name)


def test_registering_again_changes_no_file_and_warns_of_nothing(store: Store, catalogue: Catalogue) -> None:
    def contents() -> dict[str, str]:
        return {str(file): hash_file(file) for file in store.folders[0].rglob("*") if file.is_file()}

    before = contents()
    with mlflow.start_run(experiment_id=store.experiment), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        register(store.folders[0], RegisterSettings(name="again"), store.registered[0].decision, catalogue, "card 1")
    assert contents() == before


def test_description_is_cut_to_what_the_store_allows() -> None:
    lines = "\n".join(f"| parameter.{number} | {number} |" for number in range(400))
    description = _shorten_card(lines)
    assert 0.9 * MAX_DESCRIPTION_CHARS < len(description) <= MAX_DESCRIPTION_CHARS
    assert description.endswith("gate/model_card.md of this release.")
    assert set(description.splitlines()[:-2]) <= set(lines.splitlines())
    assert _shorten_card("card") == "card"

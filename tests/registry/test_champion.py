"""The alias `champion` in a real registry: moved by the gate, manually and by rollback, with a history of reasons."""

import dataclasses
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.registry.champion import champion_history, promote, rollback
from deeprank.registry.releases import find_version
from tests.registry_fixtures import Store, gate_decision, register_release


@pytest.fixture(scope="module")
def plants(store: Store, catalogue: Catalogue) -> Iterator[str]:
    """Versions 1 (champion), 2 (held), 3 (promoted), 4 (promoted)."""
    for recall, champion_recall in ((0.6, None), (0.55, 0.6), (0.7, 0.6), (0.9, 0.7)):
        register_release(store, "plants", gate_decision(recall, champion_recall), catalogue)
    return "plants"


def _champion(name: str) -> int:
    return int(find_version(name, "champion").version)


def test_gate_records_each_move_with_its_reason(plants: str) -> None:
    moves = champion_history(plants)
    assert [(move.previous_version, move.version, move.moved_by) for move in moves] == [
        (None, 1, "gate"),
        (1, 3, "gate"),
        (3, 4, "gate"),
    ]
    assert [move.reason for move in moves] == [find_version(plants, number).tags["gate.reason"] for number in ("1", "3", "4")]
    assert [move.run_id for move in moves] == [find_version(plants, number).run_id for number in ("1", "3", "4")]
    assert [move.at for move in moves] == sorted(move.at for move in moves)
    assert champion_history("nobody") == []


def test_each_rollback_goes_back_one_champion(plants: str) -> None:
    assert (rollback(plants, "worse in the shop").version, _champion(plants)) == (3, 3)
    assert (rollback(plants, "that one too").version, _champion(plants)) == (1, 1)
    with pytest.raises(ModelError, match="version 1 is the first champion of plants"):
        rollback(plants, "once more")
    assert [(move.previous_version, move.version, move.moved_by) for move in champion_history(plants)[3:]] == [
        (4, 3, "rollback"),
        (3, 1, "rollback"),
    ]
    assert champion_history(plants)[3].reason == "worse in the shop"


def test_rollback_skips_versions_that_refreshed_an_index(store: Store, catalogue: Catalogue) -> None:
    refreshed = dataclasses.replace(gate_decision(0.9, 0.6), state="refreshed", reason="its index")
    for decision in (gate_decision(0.6, None), refreshed, gate_decision(0.9, 0.6), refreshed, refreshed):
        register_release(store, "nightly", decision, catalogue)
    assert _champion("nightly") == 5
    # Version 2 was the champion when version 3 became it.
    assert rollback("nightly", "worse in the shop").version == 2
    with pytest.raises(ModelError, match="version 2 is the first champion of nightly"):
        rollback("nightly", "once more")


def test_promoting_a_held_version_requires_force(plants: str) -> None:
    with pytest.raises(ModelError, match=r"the gate did not pass version 2 of plants \(held: .*--force"):
        promote(plants, 2, "I know better")
    with pytest.raises(ModelError, match="plants has no version 9"):
        promote(plants, 9, "?")
    assert promote(plants, 2, "I know better", force=True).version == _champion(plants) == 2
    with pytest.raises(ModelError, match="version 2 of plants is already the champion"):
        promote(plants, 2, "again", force=True)
    last = champion_history(plants)[-1]
    assert (last.moved_by, last.reason) == ("manual", "I know better")


def test_rollback_to_a_deleted_version_is_refused(store: Store, catalogue: Catalogue) -> None:
    for recall, champion_recall in ((0.6, None), (0.9, 0.6)):
        register_release(store, "gone", gate_decision(recall, champion_recall), catalogue)
    MlflowClient().delete_model_version("gone", "1")
    with pytest.raises(ModelError, match="version 1 of gone, the previous champion, is no longer in the registry"):
        rollback("gone", "try")
    assert _champion("gone") == 2
    with pytest.raises(ModelError, match="nobody has no champion"):
        rollback("nobody", "try")


def test_history_of_an_older_version_is_refused(tracking: object) -> None:
    client = MlflowClient()
    client.create_registered_model("fossils")
    client.set_registered_model_tag("fossils", "champion.move.000000", '{"at": "2025", "version": 1, "before": null, "by": "hand"}')
    with pytest.raises(ModelError, match=r"the champion history of fossils was recorded by an older version .* \(register.name\)"):
        champion_history("fossils")

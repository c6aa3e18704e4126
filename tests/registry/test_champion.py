"""The alias `champion` in a real registry: moved by the gate, by hand and back, with a history that says why."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, SplitShares, ingest
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.registry.champion import champion_drift, history, promote, rollback
from deeprank.registry.register import RegisterSettings, refresh, register
from deeprank.registry.releases import Release, fetch, find
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, sample_triplets
from tests.serving.conftest import NAME, Store, decision, make_release


@pytest.fixture(scope="module")
def plants(store: Store, catalogue: Catalogue) -> Iterator[str]:
    """Versions 1 (champion), 2 (held), 3 (promoted), 4 (promoted)."""
    for new, old in ((0.6, None), (0.55, 0.6), (0.7, 0.6), (0.9, 0.7)):
        with mlflow.start_run(experiment_id=store.experiment):
            register(store.folders[0], RegisterSettings(name="plants"), decision(new, old), catalogue, "card")
    return "plants"


def _champion(name: str) -> int:
    return int(find(name, "champion").version)


def test_the_gate_writes_down_when_which_and_why(plants: str) -> None:
    moves = history(plants)
    assert [(move.before, move.version, move.by) for move in moves] == [(None, 1, "gate"), (1, 3, "gate"), (3, 4, "gate")]
    assert [move.reason for move in moves] == [find(plants, number).tags["gate.reason"] for number in ("1", "3", "4")]
    assert [move.run_id for move in moves] == [find(plants, number).run_id for number in ("1", "3", "4")]
    assert [move.at for move in moves] == sorted(move.at for move in moves)
    assert history("nobody") == []


def test_rolling_back_twice_goes_back_two_champions_and_then_there_is_none(plants: str) -> None:
    assert (rollback(plants, "worse in the shop").version, _champion(plants)) == (3, 3)
    assert (rollback(plants, "that one too").version, _champion(plants)) == (1, 1)
    with pytest.raises(ModelError, match="version 1 is the first champion of plants"):
        rollback(plants, "once more")
    assert [(move.before, move.version, move.by) for move in history(plants)[3:]] == [(4, 3, "rollback"), (3, 1, "rollback")]
    assert history(plants)[3].reason == "worse in the shop"


def test_a_rollback_goes_past_versions_that_only_refreshed_the_index(store: Store, catalogue: Catalogue) -> None:
    refreshed = dataclasses.replace(decision(0.9, 0.6), state="refreshed", reason="its index")
    for decided in (decision(0.6, None), refreshed, decision(0.9, 0.6), refreshed, refreshed):
        with mlflow.start_run(experiment_id=store.experiment):
            register(store.folders[0], RegisterSettings(name="nightly"), decided, catalogue, "card")
    assert _champion("nightly") == 5
    # Version 2: the champion before, as it was when version 3 took the title.
    assert rollback("nightly", "worse in the shop").version == 2
    with pytest.raises(ModelError, match="version 2 is the first champion of nightly"):
        rollback("nightly", "once more")


def test_promotion_by_hand_wants_a_version_the_gate_did_not_hold(plants: str) -> None:
    with pytest.raises(ModelError, match=r"the gate judged version 2 of plants held: .*--anyway"):
        promote(plants, 2, "I know better")
    with pytest.raises(ModelError, match="plants has no version 9"):
        promote(plants, 9, "?")
    assert promote(plants, 2, "I know better", anyway=True).version == _champion(plants) == 2
    with pytest.raises(ModelError, match="version 2 of plants is the champion already"):
        promote(plants, 2, "again", anyway=True)
    assert (history(plants)[-1].by, history(plants)[-1].reason) == ("hand", "I know better")


def test_a_champion_that_was_deleted_is_not_rolled_back_to(store: Store, catalogue: Catalogue) -> None:
    for new, old in ((0.6, None), (0.9, 0.6)):
        with mlflow.start_run(experiment_id=store.experiment):
            register(store.folders[0], RegisterSettings(name="gone"), decision(new, old), catalogue, "card")
    MlflowClient().delete_model_version("gone", "1")
    with pytest.raises(ModelError, match="version 1 of gone, the champion before, is no longer in the registry"):
        rollback("gone", "try")
    assert _champion("gone") == 2
    with pytest.raises(ModelError, match="nobody has no champion"):
        rollback("nobody", "try")


def test_drift_is_measured_against_the_champion(store: Store, catalogue: Catalogue, tmp_path: Path) -> None:
    record = Record(tmp_path)
    champion_drift(catalogue, NAME, record)
    assert record.notes["drift.champion"] == "3"
    assert {point.name: point.value for point in record.points}["drift.new_images"] == 0
    record = Record(tmp_path)
    champion_drift(catalogue, "nobody", record)
    assert record.notes["drift.champion"] == "none yet"


def test_a_refresh_makes_findable_what_came_and_drift_still_calls_it_new(
    store: Store, bundle: Bundle, synthetic_folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(synthetic_folder, images)
    late = sorted(images.rglob("*.*"))[::6]
    for file in late:
        file.unlink()
    settings = IngestSettings(shares=SplitShares(train=0.5, val=0.25, test=0.25))
    before, _ = ingest(images, settings, str(tmp_path / "catalogues"), progress=False)
    for file in late:
        shutil.copy(synthetic_folder / file.relative_to(images), file)
    today, _ = ingest(images, settings, str(tmp_path / "catalogues"), progress=False)
    embeddings = catalogue_embeddings(bundle, before, np.arange(len(before.frame)))
    drawn = sample_triplets(before.frame, SampleSettings(), before.fingerprint)
    folder = make_release(tmp_path / "release", before, bundle, embeddings, drawn, 0.6)
    with mlflow.start_run(experiment_id=store.experiment):
        register(folder, RegisterSettings(name="growing"), decision(0.6, None), before, "card")
    drifted = []
    for _ in range(2):
        record = Record(tmp_path / "record")
        champion_drift(today, "growing", record)
        drifted.append({point.name: point.value for point in record.points})
        with mlflow.start_run(experiment_id=store.experiment):
            refreshed = refresh("growing", today, record)
    assert refreshed is None, "the first refresh left nothing to refresh"
    # Most of it is missing: a disk that was not mounted.
    for file in [file for n, file in enumerate(sorted(images.rglob("*.*"))) if n % 5 < 3]:
        file.unlink()
    little, _ = ingest(images, settings, str(tmp_path / "catalogues"), progress=False)
    with pytest.raises(ModelError, match=r"that version 2 of growing finds are not in the catalogue .* its index stays as it is"):
        refresh("growing", little, Record(tmp_path / "record"))
    champion = find("growing", "champion")
    assert (champion.version, champion.tags["gate.state"]) == (2, "refreshed")
    assert find("growing", "challenger").version == 1
    index = Release(fetch(champion)).index
    assert sorted(index.rows["id"]) == sorted(today.frame["id"])
    assert drifted[0]["drift.new_images"] == len(today.frame) - len(before.frame) == len(late)
    assert drifted[1] == pytest.approx(drifted[0], nan_ok=True)

"""The champion's index is refreshed with new images, which drift still counts as new."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, SplitShares, ingest
from deeprank.errors import ModelError
from deeprank.evaluation.evaluation import empty_evaluation
from deeprank.evaluation.gate import PromotionSettings, decide
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.registry.champion import is_provisional_champion
from deeprank.registry.champion_drift import measure_champion_drift
from deeprank.registry.refresh import refresh_champion
from deeprank.registry.releases import fetch_release, find_version, open_version
from deeprank.reporting import Record
from deeprank.triplets.sampling import SampleSettings, sample_triplets
from tests.registry_fixtures import Store, gate_decision, make_release, register_release


def _ingest(images: Path, tmp_path: Path) -> Catalogue:
    settings = IngestSettings(shares=SplitShares(train=0.5, val=0.25, test=0.25))
    return ingest(images, settings, str(tmp_path / "catalogues"), progress=False)[0]


def test_refresh_indexes_new_images_and_drift_keeps_them_new(store: Store, bundle: Bundle, synthetic_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(synthetic_folder, images)
    late = sorted(images.rglob("*.*"))[::6]
    for file in late:
        file.unlink()
    previous = _ingest(images, tmp_path)
    for file in late:
        shutil.copy(synthetic_folder / file.relative_to(images), file)
    current = _ingest(images, tmp_path)
    embeddings = catalogue_embeddings(bundle, previous, np.arange(len(previous.frame)))
    triplets = sample_triplets(previous.frame, SampleSettings(), previous.fingerprint)
    folder = make_release(tmp_path / "release", previous, bundle, embeddings, triplets, 0.6)
    register_release(store, "growing", gate_decision(0.6, None), previous, folder)
    metrics = []
    for _ in range(2):
        record = Record(tmp_path / "record")
        measure_champion_drift(current, "growing", record)
        metrics.append({point.name: point.value for point in record.points})
        with mlflow.start_run(experiment_id=store.experiment):
            refreshed = refresh_champion("growing", current, record)
    assert refreshed is None, "the first refresh left nothing to refresh"
    # Most images are missing, as if a disk were not mounted.
    for file in [file for n, file in enumerate(sorted(images.rglob("*.*"))) if n % 5 < 3]:
        file.unlink()
    mostly_missing = _ingest(images, tmp_path)
    with pytest.raises(ModelError, match=r"in the index of growing version 2 are missing from the catalogue .* the index was not changed"):
        refresh_champion("growing", mostly_missing, Record(tmp_path / "record"))
    champion = find_version("growing", "champion")
    assert (champion.version, champion.tags["gate.state"]) == (2, "refreshed")
    assert champion.tags["gate.reason"] == f"the model of version 1, with {len(late)} images added to its index and 0 removed"
    assert find_version("growing", "challenger").version == 1
    assert sorted(open_version(champion).index.rows["id"]) == sorted(current.frame["id"])
    assert (fetch_release(champion) / "gate" / "model_card.md").read_text() == f"{champion.tags['gate.reason']}.\n\ncard"
    assert metrics[0]["drift.new_images"] == len(current.frame) - len(previous.frame) == len(late)
    assert metrics[1] == pytest.approx(metrics[0], nan_ok=True)


def test_a_refreshed_champion_stays_provisional(store: Store, bundle: Bundle, synthetic_folder: Path, tmp_path: Path) -> None:
    images = shutil.copytree(synthetic_folder, tmp_path / "images")
    late = sorted(images.rglob("*.*"))[0]
    late.unlink()
    previous = _ingest(images, tmp_path)
    shutil.copy(synthetic_folder / late.relative_to(images), late)
    embeddings = catalogue_embeddings(bundle, previous, np.arange(len(previous.frame)))
    triplets = sample_triplets(previous.frame, SampleSettings(), previous.fingerprint)
    folder = make_release(tmp_path / "release", previous, bundle, embeddings, triplets, 0.6)
    register_release(store, "provisional", decide(empty_evaluation().queries, None, [], PromotionSettings()), previous, folder)
    with mlflow.start_run(experiment_id=store.experiment):
        refreshed = refresh_champion("provisional", _ingest(images, tmp_path), Record(tmp_path / "record"))
    assert refreshed is not None
    assert "; the champion stays provisional until a release can be tested" in refreshed.decision.reason
    assert is_provisional_champion("provisional")

"""Drift against the registered champion."""

from pathlib import Path

from deeprank.data.catalogue import Catalogue
from deeprank.registry.champion_drift import measure_champion_drift
from deeprank.reporting import Record
from tests.registry_fixtures import NAME, Store


def test_drift_is_measured_against_the_champion(store: Store, catalogue: Catalogue, tmp_path: Path) -> None:
    record = Record(tmp_path)
    measure_champion_drift(catalogue, NAME, record)
    assert record.notes["drift.champion"] == "3"
    assert {point.name: point.value for point in record.points}["drift.new_images"] == 0
    record = Record(tmp_path)
    measure_champion_drift(catalogue, "nobody", record)
    assert record.notes["drift.champion"] == "none yet"

"""A record keeps what was reported, and holds the same after loading."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from deeprank.reporting import MetricPoint, Record


def test_a_loaded_record_equals_the_saved_one(tmp_path: Path) -> None:
    record = Record(tmp_path / "r")
    record.metric("train.loss", np.float32(2), 1)
    record.metric("train.loss", 1.5, 2)
    record.metric("queries", 12)
    record.note("index.kind", "exact")
    record.note("index.kind", "inverted")
    record.figure("curves", Figure(figsize=(2, 1)))
    record.save()
    loaded = Record.load(tmp_path / "r")
    assert loaded == record
    assert loaded.points == [MetricPoint("train.loss", 2.0, 1), MetricPoint("train.loss", 1.5, 2), MetricPoint("queries", 12.0, None)]
    assert loaded.notes == {"index.kind": "inverted"}
    assert loaded.figures == {"curves": tmp_path / "r" / "curves.png"}
    with Image.open(loaded.figures["curves"]) as image:
        assert image.format == "PNG"


def test_a_missing_record_is_empty(tmp_path: Path) -> None:
    loaded = Record.load(tmp_path / "nowhere")
    assert (loaded.points, loaded.notes, loaded.figures) == ([], {}, {})


def test_nan_survives_saving(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.metric("recall", float("nan"))
    record.save()
    assert np.isnan(Record.load(tmp_path).points[0].value)

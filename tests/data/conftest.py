"""A small folder of images, ingested and looked at."""

from pathlib import Path

import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestReport, IngestSettings, ingest
from tests.drawing import put_all


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three images."""
    return put_all(tmp_path / "images", {f"{label}/{i}.png": 10 * k + i for k, label in enumerate("xy") for i in range(3)})


def take(folder: Path, **settings: object) -> tuple[Catalogue, IngestReport]:
    """Ingest a folder into a catalogue beside it."""
    return ingest(folder, IngestSettings(source=str(folder), **settings), str(folder.parent / "catalogues"), progress=False)


def rows_of(catalogue: Catalogue) -> dict[str, dict[str, object]]:
    return {row["path"]: row for row in catalogue.state.to_dict("records")}

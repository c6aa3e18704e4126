"""A small folder of images, and what an ingest makes of it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestReport, IngestSettings, SplitShares, ingest
from tests.drawing import encoded, pattern, put_all

THIRDS = SplitShares(train=0.34, val=0.33, test=0.33)
NOBODY = 65534
ODD_FILES = ["broken.avif", "long-comment.gif", "too-wide.png"]


def two_classes() -> dict[str, int]:
    """Return the files of two classes of three images."""
    return {f"{label}/{i}.png": 10 * k + i for k, label in enumerate("xy") for i in range(3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two classes of three images."""
    return put_all(tmp_path / "images", two_classes())


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """The same folder, while permissions apply: root, who may read everything, becomes the user nobody during the test."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        folder = put_all(Path(temporary) / "images", two_classes())
        if user == 0:
            for path in [Path(temporary), *Path(temporary).rglob("*")]:
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(user)


@pytest.fixture
def read_errors(monkeypatch: pytest.MonkeyPatch) -> dict[str, OSError]:
    """Errors by file name: reading such a file raises its error, for any user."""
    errors: dict[str, OSError] = {}
    open_file = Path.open

    def open_or_raise(path: Path, mode: str = "r", **options: object) -> IO[Any]:
        if path.name in errors:
            raise errors[path.name]
        return open_file(path, mode, **options)

    monkeypatch.setattr(Path, "open", open_or_raise)
    return errors


def run_ingest(folder: Path, **settings: object) -> tuple[Catalogue, IngestReport]:
    """Ingest a folder into a catalogue beside it."""
    return ingest(folder, IngestSettings(source=str(folder), **settings), str(folder.parent / "catalogues"), progress=False)


def rows_by_path(catalogue: Catalogue) -> dict[str, dict[str, object]]:
    """Return the state of a catalogue by path."""
    return {row["path"]: row for row in catalogue.state.to_dict("records")}


def odd_file(name: str) -> bytes:
    """Return the bytes of one of ODD_FILES, each of which once ended an ingest with an error of Pillow's."""
    if name == "broken.avif":
        data = bytearray(encoded(pattern(1), "AVIF"))
        start = data.index(b"iinf") + 4
        data[start : start + 8] = b"\0" * 8
        return bytes(data)
    if name == "long-comment.gif":
        return encoded(pattern(1).convert("P"), "GIF", comment=b"x" * 70_000)
    return encoded(Image.new("RGB", (70_000, 20)))

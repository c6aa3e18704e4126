"""The canary: a few images whose neighbors are written down when a release is registered, and must come out again."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from deeprank.checksums import read_manifest, write_manifest
from deeprank.errors import DataError, ModelError
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher

FILE = "canary.json"
FORMAT = 1
IMAGES, NEIGHBORS = 8, 5
# Other hardware computes a little differently; another net, index or preprocessing differs by much more.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class Answer:
    """What an image of the catalogue finds: ids, nearest first, and their distances."""

    image: str
    neighbors: list[str]
    distances: list[float]


def write_canary(release: Release, file: Path) -> None:
    """Write what a release answers to a few images of its index.

    Args:
        release: with bundle and index; its catalogue must be there.
        file: where to; a release that holds it as canary.json is checked before it is served.

    """
    searcher = Searcher(release)
    ids = searcher.index.rows["id"]
    places = np.unique(np.linspace(0, len(ids) - 1, IMAGES).round().astype(int))
    answers = _ask(searcher, ids.iloc[places].tolist())
    write_manifest(file, {"format": FORMAT, "answers": [asdict(answer) for answer in answers]})


def check_canary(searcher: Searcher) -> bool:
    """Ask a release what it was asked when it was registered; False where it holds no canary.

    Raises:
        ModelError: an image cannot be read, or its neighbors are others, or nearer or farther than they were.

    """
    file = searcher.release.folder / FILE
    if not file.exists():
        return False
    expected = [Answer(**one) for one in read_manifest(file, "holds no canary", FORMAT, {"answers"})["answers"]]
    try:
        answers = _ask(searcher, [answer.image for answer in expected])
    except DataError as error:
        raise ModelError(f"the canary cannot be asked: {error}") from None
    for before, now in zip(expected, answers, strict=True):
        if difference := _difference(before, now):
            raise ModelError(f"image {before.image[:12]} has other neighbors than when it was registered: {difference}")
    return True


def _ask(searcher: Searcher, ids: list[str]) -> list[Answer]:
    # The stored images as they are: to encode one anew would change it.
    prepared = torch.stack([searcher.model[1](searcher.image(id)) for id in ids])
    found = searcher.index.search(searcher.forward(prepared), NEIGHBORS)
    return [Answer(id, one["id"].tolist(), one["distance"].round(6).tolist()) for id, one in zip(ids, found, strict=True)]


def _difference(before: Answer, now: Answer) -> str:
    """Say in what two answers differ; nothing where only images at the same distance changed places."""
    if len(before.distances) != len(now.distances):
        return f"{len(now.distances)} instead of {len(before.distances)}"
    gaps = np.abs(np.subtract(before.distances, now.distances))
    if gaps.max(initial=0) > TOLERANCE:
        worst = int(gaps.argmax())
        return f"number {worst + 1} is at {now.distances[worst]:.4f} instead of {before.distances[worst]:.4f}"
    # The last ones may have given way to others that are as far.
    nearer = [id for id, distance in zip(before.neighbors, before.distances, strict=True) if distance < before.distances[-1] - TOLERANCE]
    missing = sorted(set(nearer) - set(now.neighbors))
    return f"{missing[0][:12]} is not among them" if missing else ""

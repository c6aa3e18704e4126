"""The canary: a few queries whose neighbors are stored with a release, to check later that the release still returns them."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from deeprank.checksums import read_manifest, write_manifest
from deeprank.errors import DataError, ModelError
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher

CANARY_FILE = "canary.json"
FORMAT = 2
NUM_QUERIES, NUM_NEIGHBORS = 8, 5
# Rounding differs between machines by less than this; another model, index or preprocessing differs by much more.
DISTANCE_TOLERANCE = 2e-3


@dataclass(frozen=True)
class CanaryResult:
    """The neighbors of one image of the index.

    Attributes:
        query: id of the image.
        neighbors: ids of its neighbors, nearest first.
        distances: to these neighbors.

    """

    query: str
    neighbors: list[str]
    distances: list[float]


def write_canary(release: Release, file: Path) -> None:
    """Write the neighbors that a release returns for a few images of its index.

    Args:
        release: with bundle and index; its catalogue must be readable.
        file: file to write; a release that contains it as canary.json is checked before it is served.

    """
    searcher = Searcher(release)
    ids = searcher.index.rows["id"]
    positions = np.unique(np.linspace(0, len(ids) - 1, NUM_QUERIES).round().astype(int))
    results = _search(searcher, ids.iloc[positions].tolist())
    write_manifest(file, {"format": FORMAT, "results": [asdict(result) for result in results]})


def check_canary(searcher: Searcher) -> bool:
    """Compare the neighbors that a release returns with those of its canary; return False if it has no canary.

    Raises:
        ModelError: an image cannot be read, or its neighbors or their distances have changed.

    """
    file = searcher.release.folder / CANARY_FILE
    if not file.exists():
        return False
    expected = [
        CanaryResult(**result)
        for result in read_manifest(file, "has no canary", FORMAT, {"results"}, "train again: `deeprank run`")["results"]
    ]
    try:
        results = _search(searcher, [result.query for result in expected])
    except DataError as error:
        raise ModelError(f"the canary cannot be checked: {error}") from None
    for before, now in zip(expected, results, strict=True):
        if difference := _difference(before, now):
            raise ModelError(f"image {before.query[:12]} has other neighbors than when the release was registered: {difference}")
    return True


def _search(searcher: Searcher, ids: list[str]) -> list[CanaryResult]:
    # The stored JPEGs are used as they are: encoding them again would change them.
    inputs = torch.stack([searcher.preprocessing(searcher.stored_image(id)) for id in ids])
    tables = searcher.index.search(searcher.model.as_queries(searcher.forward(inputs)), NUM_NEIGHBORS)
    return [CanaryResult(id, table["id"].tolist(), table["distance"].round(6).tolist()) for id, table in zip(ids, tables, strict=True)]


def _difference(before: CanaryResult, now: CanaryResult) -> str:
    """Return how two results differ, in words; empty if only neighbors at equal distances changed places."""
    if len(before.distances) != len(now.distances):
        return f"{len(now.distances)} neighbors instead of {len(before.distances)}"
    changes = np.abs(np.subtract(before.distances, now.distances))
    if changes.max(initial=0) > DISTANCE_TOLERANCE:
        rank = int(changes.argmax())
        return f"neighbor {rank + 1} is at distance {now.distances[rank]:.4f} instead of {before.distances[rank]:.4f}"
    # The farthest neighbors may be replaced by others at the same distance.
    cutoff = before.distances[-1] - DISTANCE_TOLERANCE
    nearer = [id for id, distance in zip(before.neighbors, before.distances, strict=True) if distance < cutoff]
    missing = sorted(set(nearer) - set(now.neighbors))
    return f"{missing[0][:12]} is not among them" if missing else ""

"""The clusters as one HTML page to walk through: map, sections, clusters, images."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.clusters import branches, choice_in_words, in_the_plane, square
from deeprank.search.clusters import Clusters, Floats, Integers, kind, majority

# Images in the page, in all and of one cluster; one takes about 3 kB.
TOTAL, OF_ONE = 2000, 24
SIDE = 96
# Of a cluster's images, those seen without opening it; and of those shown, how many are the farthest.
AT_FIRST, FARTHEST = 8, 0.25
NEAREST = 4
ON_MAP = 500
MAP_SHAPE = np.array([100.0, 62.0])


@dataclass(frozen=True)
class ClusterImage:
    """An image of a cluster; `other` is its class where that is not the cluster's."""

    row: int
    path: str
    distance: float
    other: str


@dataclass(frozen=True)
class Card:
    """A cluster.

    Attributes:
        number, size: of it.
        label: its most frequent class.
        share: of its images that have it.
        classes: each class and how many, the most frequent first, at most five; `more` is how many further ones there are.
        representative: row of the image nearest to its mean direction.
        near, far: images, the nearest to the center, and the farthest of those shown.
        neighbors: number and distance of the nearest clusters.
        spread: mean distance of its images to its center.

    """

    number: int
    size: int
    label: str
    share: float
    classes: list[tuple[str, int]]
    more: int
    representative: int
    near: list[ClusterImage]
    far: list[ClusterImage]
    neighbors: list[tuple[int, float]]
    spread: float


@dataclass(frozen=True)
class Part:
    """A section: what most of it is and how much, the commonest classes in it, and its clusters."""

    number: int
    size: int
    label: str
    share: float
    classes: list[str]
    representative: int
    clusters: list[Card]


@dataclass(frozen=True)
class Bubble:
    """A cluster's place on the map, and its width, in percent of the map's width and height."""

    number: int
    x: float
    y: float
    width: float


def walk(catalogue: Catalogue, embeddings: Floats, clusters: Clusters) -> str:
    """Return an HTML page that needs no server, no script and no other file.

    Args:
        catalogue: what was clustered.
        embeddings: of every row of its frame.
        clusters: of them.

    """
    frame, k = catalogue.frame, len(clusters.centroids)
    labels = frame["label"]
    largest = np.argsort(-clusters.sizes[:k], kind="stable")
    # Of more clusters than there are images for, only the larger ones are pictured.
    pictured = set(largest[: TOTAL - len(clusters.section_nodes)].tolist())
    each = int(np.clip((TOTAL - len(clusters.section_nodes)) // k - 1, 0, OF_ONE - 1))
    cards = _cards(frame, embeddings, clusters, each)
    parts = _parts(labels, clusters, cards)
    faces = {part.representative for part in parts} | {card.representative for card in cards if card.number in pictured}
    rows = sorted(faces | {image.row for card in cards for image in card.near + card.far})
    pictures = dict(zip(rows, map(_uri, catalogue.images(rows)), strict=True))
    return (
        _environment()
        .get_template("clusters.html.j2")
        .render(
            images=len(frame),
            classes=labels.nunique(),
            version=catalogue.version,
            clusters=clusters,
            figures=_figures(labels, clusters),
            choice=choice_in_words(clusters),
            curve=_curve(clusters),
            cards={card.number: card for card in cards},
            parts=parts,
            bubbles=_map(clusters, largest[:ON_MAP]),
            branches=_branches(clusters),
            faces=faces,
            pictures=pictures,
            at_first=AT_FIRST,
        )
    )


def _figures(labels: pd.Series, clusters: Clusters) -> dict[str, float]:
    numbers = np.unique(labels, return_inverse=True)[1]
    return {"purity": clusters.purity(numbers), "ami": clusters.ami(numbers)}


def _cards(frame: pd.DataFrame, embeddings: Floats, clusters: Clusters, each: int) -> list[Card]:
    labels, paths = frame["label"].to_numpy(), frame["path"].to_numpy()
    most = majority(frame["label"].tolist(), clusters.assigned)
    cards = []
    for number, (label, share) in enumerate(zip(most["label"], most["share"], strict=True)):
        members = clusters.members(embeddings, number)
        distance = np.linalg.norm(embeddings[members] - clusters.centroids[number], axis=1)
        representative = int(clusters.representatives[number])
        others = np.flatnonzero(members != representative)
        far = round(FARTHEST * each) if len(others) > each else 0
        picked = [others[: each - far] if each else others[:0], others[len(others) - far :]]
        near, farthest = (
            [ClusterImage(int(members[i]), paths[members[i]], float(distance[i]), _other(labels[members[i]], label)) for i in part]
            for part in picked
        )
        counts = pd.Series(labels[members]).value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
        classes = [(str(name), int(count)) for name, count in counts.iloc[:5].items()]
        neighbors = _nearest(clusters, number)
        cards.append(
            Card(
                number,
                len(members),
                label,
                share,
                classes,
                len(counts) - len(classes),
                representative,
                near,
                farthest,
                neighbors,
                float(distance.mean()),
            )
        )
    return cards


def _other(label: str, most: str) -> str:
    return "" if label == most else label


def _nearest(clusters: Clusters, number: int) -> list[tuple[int, float]]:
    distance = np.linalg.norm(clusters.centroids - clusters.centroids[number], axis=1)
    distance[number] = np.inf
    return [(int(i), float(distance[i])) for i in np.argsort(distance, kind="stable")[: min(NEAREST, len(distance) - 1)]]


def _parts(labels: pd.Series, clusters: Clusters, cards: list[Card]) -> list[Part]:
    what = kind(labels.tolist(), clusters.sections[clusters.assigned])
    parts = []
    for section, (node, label, share) in enumerate(zip(clusters.section_nodes, what["label"], what["share"], strict=True)):
        inside = [card for card in cards if clusters.sections[card.number] == section]
        by_size = sorted(inside, key=lambda card: -card.size)
        common = [card.label for card in by_size if card.label != label]
        representative = int(clusters.representatives[node])
        parts.append(Part(section, int(clusters.sizes[node]), label, share, list(dict.fromkeys(common))[:3], representative, inside))
    return parts


def _map(clusters: Clusters, numbers: Integers) -> list[Bubble]:
    """Place clusters on the map: near ones near each other, none over another, their areas as their sizes."""
    size = np.sqrt(clusters.sizes[numbers].astype(np.float64))
    # All of them together cover a third of the map; a small one stays large enough to be hit.
    radius = np.maximum(size * np.sqrt(MAP_SHAPE.prod() / 3 / (np.pi * (size**2).sum())), 0.9)
    radius = np.minimum(radius, 6.0)
    place = in_the_plane(clusters.centroids[numbers]).astype(np.float64)
    low, extent = place.min(axis=0), np.ptp(place, axis=0)
    place = np.where(extent > 0, (place - low) / np.where(extent > 0, extent, 1), 0.5) * (MAP_SHAPE - 14) + 7
    place = _apart(place, radius)
    return [
        Bubble(int(number), float(x / MAP_SHAPE[0] * 100), float(y / MAP_SHAPE[1] * 100), float(2 * r))
        for number, (x, y), r in zip(numbers, place, radius, strict=True)
    ]


def _apart(place: npt.NDArray[np.float64], radius: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Push circles apart, in small steps, until they no longer overlap or the steps are used up."""
    room = radius[:, None] + radius + 0.4
    np.fill_diagonal(room, 0)
    for _ in range(200):
        between = place[:, None] - place
        distance = np.maximum(np.linalg.norm(between, axis=2), 1e-6)
        overlap = np.maximum(room - distance, 0)
        if not overlap.any():
            break
        place = place + (between * (0.4 * overlap / distance)[:, :, None]).sum(axis=1)
        place = np.clip(place, radius[:, None], MAP_SHAPE - radius[:, None])
    return place


def _branches(clusters: Clusters) -> list[str]:
    """Return the tree above the sections as SVG paths: a unit a section downwards, 100 from the root to the sections."""
    highest = max(clusters.joined[:, 2], default=1.0) or 1.0
    height = {int(node): 0.0 for node in clusters.section_nodes}
    paths = []
    for node, places, children, at in branches(clusters, clusters.section_nodes):
        height[node] = at
        x = 100 * (1 - at / highest)
        upper, lower = (place + 0.5 for place in places)
        left, right = (100 * (1 - height[child] / highest) for child in children)
        paths.append(f"M{left:.2f} {upper:.2f}H{x:.2f}V{lower:.2f}H{right:.2f}")
    return paths


def _curve(clusters: Clusters) -> list[tuple[float, float, int, float]]:
    """Return of each number of clusters tried its place in a field of 100 x 100, itself, and its silhouette."""
    tried = clusters.choice
    if len(tried) < 2:
        return []
    across, up = np.log(tried["k"].to_numpy(dtype=np.float64)), tried["silhouette"].to_numpy(dtype=np.float64)
    x = 100 * (across - across.min()) / np.ptp(across)
    y = 100 * (up.max() - up) / (np.ptp(up) or 1.0)
    return [(float(a), float(b), int(k), float(value)) for a, b, k, value in zip(x, y, tried["k"], up, strict=True)]


def _uri(jpeg: bytes) -> str:
    buffer = io.BytesIO()
    square(jpeg, SIDE).save(buffer, "WEBP", quality=72, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["last"] = lambda label: label.rsplit("/", 1)[-1]
    return environment

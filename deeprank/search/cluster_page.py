"""The clusters as one HTML page: a map, the tree over the sections, and the images of each cluster."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deeprank.data.catalogue import Catalogue
from deeprank.plotting.thumbnails import center_square
from deeprank.search.arrays import Vectors
from deeprank.search.bubble_map import bubble_map
from deeprank.search.cluster_labels import majority_folder, majority_label
from deeprank.search.clustering import num_clusters_reason
from deeprank.search.clusters import Clusters

# A thumbnail takes about 3 kB.
MAX_PAGE_IMAGES, MAX_CLUSTER_IMAGES, THUMBNAIL_PX = 2000, 24, 96
# Images of a cluster that are visible before it is expanded.
COLLAPSED_IMAGES = 8
# Share of a cluster's images that are its farthest, where not all are shown.
FARTHEST_SHARE = 0.25
MAX_CARD_CLASSES, MAX_SECTION_CLASSES, MAX_NEIGHBORS = 5, 3, 4
MAX_MAP_CLUSTERS = 500


@dataclass(frozen=True)
class ClusterImage:
    """An image of a cluster.

    Attributes:
        row: of the catalogue's frame.
        path: of its file.
        distance: to the centroid.
        other_label: its label where that is not the cluster's; else empty.

    """

    row: int
    path: str
    distance: float
    other_label: str


@dataclass(frozen=True)
class ClusterCard:
    """What the page shows of a cluster.

    Attributes:
        number, size: of the cluster.
        label, share: its most frequent label, and the share of its images that have it.
        class_counts: the five most frequent labels and their numbers of images, most frequent first.
        more_classes: number of further labels.
        representative: row of its most typical image.
        nearest, farthest: images, nearest to the centroid first.
        neighbors: number and distance of the clusters with the nearest centroids.

    """

    number: int
    size: int
    label: str
    share: float
    class_counts: list[tuple[str, int]]
    more_classes: int
    representative: int
    nearest: list[ClusterImage]
    farthest: list[ClusterImage]
    neighbors: list[tuple[int, float]]


@dataclass(frozen=True)
class Section:
    """What the page shows of a section.

    Attributes:
        number, size: of the section.
        label, share: the folder that most of its images lie in, and their share.
        class_labels: the labels of its largest clusters.
        representative: row of its most typical image.
        cards: its clusters.

    """

    number: int
    size: int
    label: str
    share: float
    class_labels: list[str]
    representative: int
    cards: list[ClusterCard]


@dataclass(frozen=True)
class CurvePoint:
    """A number of clusters and its silhouette, at a position in a square of 100 x 100."""

    x: float
    y: float
    n_clusters: int
    silhouette: float


def cluster_page(catalogue: Catalogue, embeddings: Vectors, clusters: Clusters) -> str:
    """Return an HTML page that needs no server, no script and no other file.

    Args:
        catalogue: of the images.
        embeddings: of every row of the catalogue's frame.
        clusters: of the embeddings.

    """
    labels, k = catalogue.frame["label"], len(clusters.centroids)
    label_numbers = np.unique(labels, return_inverse=True)[1]
    max_cluster_images = MAX_PAGE_IMAGES - len(clusters.section_nodes)
    largest = np.argsort(-clusters.sizes[:k], kind="stable")
    # Where there are more clusters than images allowed, only the larger ones have an image.
    illustrated = set(largest[:max_cluster_images].tolist())
    strip_images = int(np.clip(max_cluster_images // k - 1, 0, MAX_CLUSTER_IMAGES - 1))
    cards = _cluster_cards(catalogue.frame, embeddings, clusters, strip_images)
    sections = _sections(labels, clusters, cards)
    representatives = {section.representative for section in sections}
    representatives |= {card.representative for card in cards if card.number in illustrated}
    rows = sorted(representatives | {image.row for card in cards for image in card.nearest + card.farthest})
    return (
        _environment()
        .get_template("clusters.html.j2")
        .render(
            num_images=len(labels),
            num_classes=labels.nunique(),
            version=catalogue.version,
            section_of=clusters.sections,
            purity=clusters.purity(label_numbers),
            ami=clusters.ami(label_numbers),
            reason=num_clusters_reason(clusters.silhouettes),
            curve=_silhouette_curve(clusters.silhouettes),
            cards={card.number: card for card in cards},
            sections=sections,
            bubbles=bubble_map(clusters, largest[:MAX_MAP_CLUSTERS]),
            branches=_branches(clusters),
            representatives=representatives,
            thumbnails=dict(zip(rows, map(_data_uri, catalogue.read_jpegs(rows)), strict=True)),
            collapsed_images=COLLAPSED_IMAGES,
        )
    )


def _cluster_cards(frame: pd.DataFrame, embeddings: Vectors, clusters: Clusters, strip_images: int) -> list[ClusterCard]:
    """Return a card for each cluster, with at most `strip_images` images beside the representative."""
    labels, paths = frame["label"].to_numpy(), frame["path"].to_numpy()
    majority = majority_label(frame["label"].tolist(), clusters.assignments)
    cards = []
    for number, (label, share) in enumerate(zip(majority["label"], majority["share"], strict=True)):
        members = clusters.members(embeddings, number)
        representative = int(clusters.representatives[number])
        distances = np.linalg.norm(embeddings[members] - clusters.centroids[number], axis=1)
        others = np.flatnonzero(members != representative)
        num_farthest = round(FARTHEST_SHARE * strip_images) if len(others) > strip_images else 0
        nearest, farthest = (
            [
                ClusterImage(int(row), paths[row], float(distance), "" if labels[row] == label else labels[row])
                for row, distance in zip(members[positions], distances[positions], strict=True)
            ]
            for positions in (others[: strip_images - num_farthest], others[len(others) - num_farthest :])
        )
        counts = pd.Series(labels[members]).value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
        class_counts = [(str(name), int(count)) for name, count in counts.iloc[:MAX_CARD_CLASSES].items()]
        cards.append(
            ClusterCard(
                number=number,
                size=len(members),
                label=label,
                share=share,
                class_counts=class_counts,
                more_classes=len(counts) - len(class_counts),
                representative=representative,
                nearest=nearest,
                farthest=farthest,
                neighbors=_nearest_clusters(clusters, number),
            )
        )
    return cards


def _nearest_clusters(clusters: Clusters, number: int) -> list[tuple[int, float]]:
    distances = np.linalg.norm(clusters.centroids - clusters.centroids[number], axis=1)
    distances[number] = np.inf
    return [(int(i), float(distances[i])) for i in np.argsort(distances, kind="stable")[: min(MAX_NEIGHBORS, len(distances) - 1)]]


def _sections(labels: pd.Series, clusters: Clusters, cards: list[ClusterCard]) -> list[Section]:
    majority = majority_folder(labels.tolist(), clusters.sections[clusters.assignments])
    sections = []
    for number, (node, label, share) in enumerate(zip(clusters.section_nodes, majority["label"], majority["share"], strict=True)):
        section_cards = [card for card in cards if clusters.sections[card.number] == number]
        by_size = sorted(section_cards, key=lambda card: -card.size)
        class_labels = list(dict.fromkeys(card.label for card in by_size if card.label != label))[:MAX_SECTION_CLASSES]
        representative = int(clusters.representatives[node])
        sections.append(Section(number, int(clusters.sizes[node]), label, share, class_labels, representative, section_cards))
    return sections


def _branches(clusters: Clusters) -> list[str]:
    """Return the tree above the sections as SVG paths: 1 unit per section downwards, 100 units from the root to the sections."""
    max_height = max(clusters.linkage_matrix[:, 2], default=1.0) or 1.0
    heights = {int(node): 0.0 for node in clusters.section_nodes}
    paths = []
    for join in clusters.joins_above(clusters.section_nodes):
        heights[join.node] = join.height
        x = 100 * (1 - join.height / max_height)
        upper, lower = (position + 0.5 for position in join.positions)
        left, right = (100 * (1 - heights[child] / max_height) for child in join.children)
        paths.append(f"M{left:.2f} {upper:.2f}H{x:.2f}V{lower:.2f}H{right:.2f}")
    return paths


def _silhouette_curve(silhouettes: pd.DataFrame) -> list[CurvePoint]:
    """Return the points of the silhouette over the number of clusters, on a logarithmic axis; empty for fewer than two."""
    if len(silhouettes) < 2:
        return []
    log_k = np.log(silhouettes["n_clusters"].to_numpy(dtype=np.float64))
    values: npt.NDArray[np.float64] = silhouettes["silhouette"].to_numpy(dtype=np.float64)
    x = 100 * (log_k - log_k.min()) / np.ptp(log_k)
    y = 100 * (values.max() - values) / (np.ptp(values) or 1.0)
    return [CurvePoint(float(a), float(b), int(k), float(v)) for a, b, k, v in zip(x, y, silhouettes["n_clusters"], values, strict=True)]


def _data_uri(jpeg: bytes) -> str:
    buffer = io.BytesIO()
    center_square(jpeg, THUMBNAIL_PX).save(buffer, "WEBP", quality=72, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["last_folder"] = lambda label: label.rsplit("/", 1)[-1]
    return environment

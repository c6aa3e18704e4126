"""Response bodies of the API."""

from typing import Any

from pydantic import BaseModel, ConfigDict

EXAMPLE_ID = "3f1c" * 16


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


_NEIGHBOR = {
    "id": EXAMPLE_ID,
    "path": "Fruit/Apple/Royal-Gala/Royal-Gala_012.jpg",
    "label": "Fruit/Apple/Royal-Gala",
    "distance": 0.214,
    "cluster": 17,
    "split": "train",
}


class CatalogueImage(BaseModel):
    """An image of the catalogue."""

    id: str
    path: str
    label: str
    cluster: int
    split: str


class Neighbor(CatalogueImage):
    """An image of the catalogue and its distance to the query, 0 (same image) to 2."""

    distance: float


class VersionedResponse(BaseModel):
    """A response computed with a single release.

    Attributes:
        version: version of the release in the registry; null if the release is served from a folder.

    """

    version: int | None


class SearchResponse(VersionedResponse):
    """The images nearest to the query, nearest first.

    Attributes:
        familiarity: 0, unlike anything that the model was trained on, to 1, as its train images; the less familiar a query is, the less
            the search uses what was learned.
        novel: whether the familiarity is 0.

    """

    model_config = _example(version=3, model="models:/deeprank/3", familiarity=1.0, novel=False, neighbors=[_NEIGHBOR], duration_ms=31.4)

    model: str
    familiarity: float
    novel: bool
    neighbors: list[Neighbor]
    duration_ms: float


class EmbedResponse(VersionedResponse):
    """One embedding of unit length per image."""

    model_config = _example(version=3, embeddings=[[0.031, -0.114, 0.052]])

    embeddings: list[list[float]]


class DistanceResponse(VersionedResponse):
    """The distance between two images, the first of which is the query, 0 to 2."""

    model_config = _example(version=3, distance=0.214)

    distance: float


class ExplainResponse(VersionedResponse):
    """Two base64 PNG images: each input image with its regions' contributions to the similarity drawn over it."""

    model_config = _example(version=3, similarity=0.977, distance=0.214, first_overlay="iVBORw0KGgo…", second_overlay="iVBORw0KGgo…")

    similarity: float
    distance: float
    first_overlay: str
    second_overlay: str


class ClassCount(BaseModel):
    """A label path, its number of images, and whether it is a class or a folder of classes."""

    label: str
    num_images: int
    is_class: bool


class ClassesResponse(VersionedResponse):
    """Every label that a search can be limited to."""

    model_config = _example(version=3, classes=[{"label": "Fruit/Apple", "num_images": 120, "is_class": False}])

    classes: list[ClassCount]


class ClusterSummary(BaseModel):
    """A cluster: its size, its most frequent label, the share of that label, and the ids of the images nearest to its center."""

    cluster: int
    size: int
    majority_label: str
    purity: float
    representatives: list[str]


class ClustersResponse(VersionedResponse):
    """Every cluster, largest first."""

    model_config = _example(
        version=3,
        clusters=[{"cluster": 17, "size": 42, "majority_label": "Fruit/Apple", "purity": 0.9, "representatives": [EXAMPLE_ID]}],
    )

    clusters: list[ClusterSummary]


class ClusterResponse(ClusterSummary, VersionedResponse):
    """A cluster and one page of its images; `next_offset` is the offset of the next page, null on the last page."""

    members: list[CatalogueImage]
    offset: int
    next_offset: int | None


class SamplesResponse(VersionedResponse):
    """Images of the catalogue, one per class."""

    samples: list[CatalogueImage]


class MetricEstimate(BaseModel):
    """A metric with its 95 % interval and the number of values it is the mean of; null if it could not be measured."""

    value: float | None
    low: float | None
    high: float | None
    count: int


class ModelResponse(VersionedResponse):
    """The release in service.

    Attributes:
        canary_passed: whether its canary queries had the same neighbors as at registration; false if it has no canary.
        since: when the service loaded it, UTC.

    """

    model_config = _example(
        version=3,
        model="models:/deeprank/3",
        name="deeprank",
        aliases=["champion"],
        since="2025-01-31T03:12:44+00:00",
        canary_passed=True,
        weights_hash="9f2c…",
        embedding_dim=768,
        num_images=2640,
        catalogue_version=7,
        gate_state="promoted",
        gate_reason="recall@1 +0.021 (+0.008 to +0.034)",
        metrics={"fine.recall_at_1": {"value": 0.897, "low": 0.884, "high": 0.909, "count": 2485}},
    )

    model: str
    name: str
    aliases: list[str]
    since: str
    canary_passed: bool
    weights_hash: str
    embedding_dim: int
    num_images: int
    catalogue_version: int
    gate_state: str
    gate_reason: str
    metrics: dict[str, MetricEstimate]


class LimitsResponse(BaseModel):
    """The limits of a request: bytes of its body, pixels of an image (width x height), and number of images."""

    max_upload_bytes: int
    max_pixels: int
    max_images: int


class HealthResponse(BaseModel):
    """The process is alive."""

    status: str


class RefusedRelease(BaseModel):
    """A release that the alias points to and that the service refuses."""

    version: int
    reason: str
    refused_at: str


class RegistryStatus(BaseModel):
    """The result of the last poll of the registry; `error` is empty if the alias was found."""

    reachable: bool
    checked_at: str
    error: str


class ReadinessResponse(BaseModel):
    """Whether a release is in service, which one, and why a newer one is not."""

    model_config = _example(status="ready", version=3, since="2025-01-31T03:12:44+00:00", refused=None, registry=None)

    status: str
    version: int | None
    since: str | None
    refused: RefusedRelease | None
    registry: RegistryStatus | None

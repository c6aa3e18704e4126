"""What the service answers, as its OpenAPI document describes it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

ID = "3f1c" * 16


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


_NEIGHBOR = {
    "id": ID,
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
    """An image of the catalogue and how far it is from what was asked: 0 for the same, 2 at most."""

    distance: float


class Versioned(BaseModel):
    """An answer of exactly one release.

    Attributes:
        version: of the release in the registry; null where it is served from a folder.

    """

    version: int | None


class Neighbors(Versioned):
    """The images nearest to what was asked."""

    model_config = _example(version=3, model="models:/deeprank/3", neighbors=[_NEIGHBOR], took_ms=31.4)

    model: str
    neighbors: list[Neighbor]
    took_ms: float


class Embeddings(Versioned):
    """One embedding of unit length for each image."""

    model_config = _example(version=3, embeddings=[[0.031, -0.114, 0.052]])

    embeddings: list[list[float]]


class Distance(Versioned):
    """The Euclidean distance of two embeddings."""

    model_config = _example(version=3, distance=0.214)

    distance: float


class Explained(Versioned):
    """Two PNG pictures, base64: the images with what each region adds to their similarity laid over them."""

    model_config = _example(version=3, similarity=0.977, distance=0.214, first="iVBORw0KGgo…", second="iVBORw0KGgo…")

    similarity: float
    distance: float
    first: str
    second: str


class ClassCount(BaseModel):
    """A label path, how many images it has, and whether it is a class itself or a folder of classes."""

    label: str
    count: int
    is_class: bool


class Classes(Versioned):
    """Every label, to filter by."""

    model_config = _example(version=3, classes=[{"label": "Fruit/Apple", "count": 120, "is_class": False}])

    classes: list[ClassCount]


class ClusterSummary(BaseModel):
    """A cluster: its size, the label of most of its images and their share, and the ids of those nearest to its center."""

    cluster: int
    size: int
    label: str
    share: float
    representatives: list[str]


class Clusters(Versioned):
    """Every cluster, the largest first."""

    model_config = _example(
        version=3, clusters=[{"cluster": 17, "size": 42, "label": "Fruit/Apple", "share": 0.9, "representatives": [ID]}]
    )

    clusters: list[ClusterSummary]


class ClusterMembers(ClusterSummary, Versioned):
    """A cluster and a page of its images; `next` is the offset of the page after it."""

    members: list[CatalogueImage]
    offset: int
    next: int | None


class Samples(Versioned):
    """Images of the catalogue to start from, one a class."""

    samples: list[CatalogueImage]


class Metric(BaseModel):
    """A metric with its 95 % interval, and of how many values it is the mean; null where it could not be measured."""

    value: float | None
    low: float | None
    high: float | None
    count: int


class ModelFacts(Versioned):
    """The release that answers now.

    Attributes:
        checked: whether its neighbors came out as at registration.
        since: when the service took it, UTC.

    """

    model_config = _example(
        version=3,
        model="models:/deeprank/3",
        name="deeprank",
        aliases=["champion"],
        since="2025-01-31T03:12:44+00:00",
        checked=True,
        weights="9f2c…",
        embedding_dim=512,
        images=2640,
        catalogue_version=7,
        gate_state="promoted",
        gate_reason="recall@1 +0.021 (+0.008 to +0.034)",
        metrics={"fine.recall_at_1": {"value": 0.897, "low": 0.884, "high": 0.909, "count": 2485}},
    )

    model: str
    name: str
    aliases: list[str]
    since: str
    checked: bool
    weights: str
    embedding_dim: int
    images: int
    catalogue_version: int
    gate_state: str
    gate_reason: str
    metrics: dict[str, Metric]


class Health(BaseModel):
    """The process is alive."""

    status: str


class RefusedRelease(BaseModel):
    """A release that the alias points to and that is not served."""

    version: int
    reason: str
    at: str


class RegistryLook(BaseModel):
    """What came of the last look at the registry."""

    reachable: bool
    looked_at: str
    error: str


class Readiness(BaseModel):
    """Whether a release answers, which, and what keeps a newer one from it."""

    model_config = _example(status="ready", version=3, since="2025-01-31T03:12:44+00:00", refused=None, registry=None)

    status: str
    version: int | None
    since: str | None
    refused: RefusedRelease | None
    registry: RegistryLook | None

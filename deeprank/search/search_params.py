"""Search parameters: the kind of index structure, and how much of it a search visits."""

from typing import Literal

from pydantic import Field, model_validator

from deeprank.settings import Settings

IndexKind = Literal["exact", "ivf_flat", "two_level_ivf", "hnsw", "ivf_pq", "lance"]

# The parameters that each kind must be given.
REQUIRED_PARAMS: dict[IndexKind, tuple[str, ...]] = {
    "exact": (),
    "ivf_flat": ("nprobe",),
    "two_level_ivf": ("nprobe", "coarse_nprobe"),
    "hnsw": ("ef_search",),
    "ivf_pq": ("nprobe", "rerank"),
    "lance": ("nprobe",),
}


class SearchParams(Settings):
    """The kind of index structure and the parameters of a search in it.

    Attributes:
        kind: exact: compares with every image.
            ivf_flat: inverted lists; the coarse quantizer is the centroids of the clusters.
            two_level_ivf: inverted lists of cells, into which the clusters are divided; only cells of the nearest clusters are compared.
            hnsw: a navigable graph of neighbors.
            ivf_pq: inverted lists of vectors compressed to two bits per dimension; the best candidates are compared exactly.
            lance: inverted lists of the clusters in a Lance table; a search reads only the lists that it visits.
        nprobe: lists visited: clusters (ivf_flat, ivf_pq, lance) or cells (two_level_ivf).
        coarse_nprobe: clusters whose cells are compared (two_level_ivf).
        ef_search: candidates kept during the search (hnsw; efSearch in FAISS).
        rerank: candidates compared exactly per neighbor returned (ivf_pq).

    """

    kind: IndexKind = "exact"
    nprobe: int = Field(0, ge=0)
    coarse_nprobe: int = Field(0, ge=0)
    ef_search: int = Field(0, ge=0)
    rerank: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _check_required(self) -> "SearchParams":
        missing = [name for name in REQUIRED_PARAMS[self.kind] if not getattr(self, name)]
        if missing:
            raise ValueError(f"kind {self.kind} needs {' and '.join(missing)}")
        return self

    def __str__(self) -> str:
        """Return the kind and its parameters, as in logs and tables: ivf_flat, nprobe 4."""
        return ", ".join([self.kind, *(f"{name} {getattr(self, name)}" for name in REQUIRED_PARAMS[self.kind])])


EXACT_SEARCH = SearchParams(kind="exact")

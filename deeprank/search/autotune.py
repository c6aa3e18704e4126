"""The operating point, measured: which structure, and how thoroughly, finds what comparing with everything finds, fastest."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, model_validator

from deeprank.plotting.style import BAR, NEUTRAL, RIGHT
from deeprank.reporting import Reporter, track
from deeprank.search.clusters import Clusters
from deeprank.search.faiss_index import EXACT_SEARCH, Distances, Entries, Kind, SearchParams, Structure, Vectors, build_structure, find
from deeprank.search.lance_index import LanceIndex
from deeprank.settings import Settings

logger = logging.getLogger(__name__)

NEIGHBORS = 10
RECALL_QUERIES, TIMED_QUERIES, TOGETHER = 1000, 100, 64
# A kind is not searched more thoroughly than that.
ENOUGH = 0.9995
# Nor further where it finds hardly more than with less: what compressed vectors cannot tell apart, no thoroughness can.
RISES = 0.0005
# Of the normal distribution: the recall wanted is reached with 95 % confidence, not by the luck of the queries tried.
ONE_SIDED = 1.645
RERANK = (4, 16)
AROUND = 8


class IndexSettings(Settings):
    """How to search.

    Attributes:
        backend: faiss, in memory; or lance, where the vectors stay in a table on a disk or in an object store, and lists too.
        search: auto: measured, the fastest with the recall wanted; or one point by hand, e.g. {kind: ivf_flat, nprobe: 1}.
        recall: of the 10 nearest, the share that must be found.
        exact_within_ms: while comparing with every image takes no longer than that, auto does: embedding the image
            that is asked with takes several times as long.
        seed: of the queries that are tried, and of the product quantizer.

    """

    backend: Literal["faiss", "lance"] = "faiss"
    search: Literal["auto"] | SearchParams = "auto"
    recall: float = Field(0.99, gt=0, le=1)
    exact_within_ms: float = Field(5.0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if isinstance(self.search, SearchParams) and (self.search.kind == "lance") != (self.backend == "lance"):
            raise ValueError(f"backend {self.backend} has no search of kind {self.search.kind}; kind lance goes with backend lance alone")
        return self


@dataclass(frozen=True)
class Choice:
    """The point chosen, why, its structure (None for exact), and what was measured.

    `table` has a row a point: point (in words), kind, recall_at_10, recall_low (its one-sided 95 % bound), milliseconds (one query
    alone), per_second (queries in batches of 64), megabytes and build_seconds (of its structure), unbeaten (no other point has its
    recall in less time).
    """

    point: SearchParams
    reason: str
    structure: Structure
    table: pd.DataFrame


def choose(vectors: Vectors, clusters: Clusters, settings: IndexSettings, reporter: Reporter, table: LanceIndex | None = None) -> Choice:
    """Measure recall@10 and time of many points, pick the fastest that reaches `settings.recall`, and report table and curve.

    The queries are images of the catalogue, each without itself.

    Args:
        vectors: (n, d) of unit length.
        clusters: of them.
        settings: what is wanted; a point by hand is taken as it is.
        reporter: hears index.recall_at_10, .milliseconds, .exact_milliseconds, .per_second, the notes index.kind and
            index.reason, the file index_choice.csv and its picture.
        table: where the vectors lie in Lance's lists, and are to be searched there.

    """
    if isinstance(settings.search, SearchParams):
        reporter.note("index.kind", str(settings.search))
        reporter.note("index.reason", "set by hand")
        return Choice(settings.search, "set by hand", table, pd.DataFrame())
    trial = _Trial(vectors, settings)
    rows = [trial.measure(EXACT_SEARCH, None, 0.0)]
    whole, best, kept = rows[0], rows[0], None
    kinds: list[Kind] = ["lance"] if table else [kind for kind in get_args(Kind) if kind not in ("exact", "lance")]
    for kind in track(kinds, "trying ways to search"):
        start = time.perf_counter()
        structure = table or build_structure(kind, vectors, clusters, settings.seed)
        built = time.perf_counter() - start
        for points in _sweeps(kind, clusters, structure):
            tried = _sweep(trial, points, structure, built, np.inf if table else 2 * whole["milliseconds"], settings.recall)
            rows += tried
            # Comparing with every vector of a table would read them all: it is what is found that is compared with it, no choice.
            better = _fastest(tried if table else [best, *tried], settings.recall)
            if better is not best:
                best, kept = better, structure
    measured = pd.DataFrame(rows)
    measured["unbeaten"] = _unbeaten(measured)
    against = f"comparing with all {len(vectors):,} takes {whole['milliseconds']:.2f} ms"
    found = f"{best['recall_at_10']:.4f} in {best['milliseconds']:.2f} ms, {against}"
    if not table and whole["milliseconds"] <= settings.exact_within_ms:
        best, kept, reason = whole, None, f"{against}, within the {settings.exact_within_ms:g} ms set"
    elif best["kind"] == "exact":
        reason = f"nothing faster reaches recall@10 {settings.recall:g}"
    elif best["recall_low"] < settings.recall:
        reason = f"nothing reaches recall@10 {settings.recall:g}, and this comes nearest: {found}"
    else:
        reason = f"the fastest with recall@10 {settings.recall:g}: {found}"
    logger.info("search: %s; %s", best["point"], reason)
    for name in ("recall_at_10", "milliseconds", "per_second"):
        reporter.metric(f"index.{name}", float(best[name]))
    reporter.metric("index.exact_milliseconds", float(whole["milliseconds"]))
    reporter.note("index.kind", str(best["point"]))
    reporter.note("index.reason", reason)
    told = measured.assign(point=measured["point"].map(str))
    reporter.attach("index_choice.csv", told.to_csv(index=False))
    reporter.figure("index_choice", autotune_curve(told, str(best["point"]), settings.recall))
    return Choice(best["point"], reason, kept, told)


def _sweep(
    trial: "_Trial", points: list[SearchParams], structure: Structure, built: float, slowest: float, recall: float
) -> list[dict[str, Any]]:
    """Measure points that are more and more thorough, until what is wanted is found and more of it is not, or it takes longer than
    `slowest` milliseconds.
    """  # noqa: D205
    rows: list[dict[str, Any]] = []
    for point in points:
        rows.append(trial.measure(point, structure, built))
        found = [row["recall_at_10"] for row in rows]
        stuck = found[-1] < max(found[:-1], default=-1) + RISES
        reached = rows[-1]["recall_low"] >= recall and (found[-1] >= ENOUGH or stuck)
        # Compressed vectors do not find all, however many are looked at.
        if reached or (stuck and point.kind == "ivf_pq") or rows[-1]["milliseconds"] > slowest:
            break
    return rows


def _fastest(rows: list[dict[str, Any]], recall: float) -> dict[str, Any]:
    """Return the row that takes least time of those that find enough; of those that do not, the one that finds most."""
    return min(
        rows, key=lambda row: (row["recall_low"] < recall, row["milliseconds"] if row["recall_low"] >= recall else -row["recall_low"])
    )


class _Trial:
    """Queries with their true neighbors, to try points on."""

    def __init__(self, vectors: Vectors, settings: IndexSettings) -> None:
        self.vectors = vectors
        self.asked = np.random.default_rng(settings.seed).permutation(len(vectors))[:RECALL_QUERIES]
        self.queries = np.ascontiguousarray(vectors[self.asked])
        self.wanted = min(NEIGHBORS, len(vectors) - 1)
        distances = self._without_themselves(*self._find(EXACT_SEARCH, None, self.queries))
        # By distance, not by entry: of two images equally far either will do.
        self.farthest = distances[:, -1] + 1e-6

    def _find(self, point: SearchParams, structure: Structure, queries: Vectors) -> tuple[Entries, Distances]:
        return find(structure, point, self.vectors, queries, self.wanted + 1)

    def _without_themselves(self, entries: Entries, distances: Distances) -> Distances:
        itself = entries == self.asked[:, None]
        # One that was not found leaves its place to the last.
        itself[~itself.any(axis=1), -1] = True
        return distances[~itself].reshape(len(entries), -1)

    def measure(self, point: SearchParams, structure: Structure, built: float) -> dict[str, Any]:
        """Return a row of the table."""
        distances = self._without_themselves(*self._find(point, structure, self.queries))
        alone = [_seconds(self._find, point, structure, self.queries[i : i + 1]) for i in range(min(TIMED_QUERIES, len(self.asked)))]
        batch = self.queries[:TOGETHER]
        together = min(_seconds(self._find, point, structure, batch) for _ in range(5))
        found = (distances <= self.farthest[:, None]).mean(axis=1)
        return {
            "point": point,
            "kind": point.kind,
            "recall_at_10": float(found.mean()),
            "recall_low": float(found.mean() - ONE_SIDED * found.std() / len(found) ** 0.5),
            "milliseconds": float(np.median(alone)) * 1000,
            "per_second": len(batch) / together,
            "megabytes": self._bytes(structure) / 2**20,
            "build_seconds": built,
        }

    def _bytes(self, structure: Structure) -> int:
        """Return how much is in memory; of Lance's lists nothing has to be."""
        if isinstance(structure, LanceIndex):
            return 0
        return self.vectors.nbytes if structure is None else len(faiss.serialize_index(structure))


def _seconds(job: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    job(*arguments)
    return time.perf_counter() - start


def _steps(last: int) -> list[int]:
    """Return 1, 2, 3, 4, 6, 8, 11, … up to last."""
    return sorted({*(round(2 ** (i / 2)) for i in range(2 * last.bit_length()) if round(2 ** (i / 2)) < last), last})


def _sweeps(kind: Kind, clusters: Clusters, structure: "faiss.Index") -> Iterator[list[SearchParams]]:
    """Yield series of points of a kind, each more and more thorough."""
    k = len(clusters.centroids)
    if kind == "hnsw":
        yield [SearchParams(kind=kind, ef_search=ef_search) for ef_search in _steps(1024) if ef_search > NEIGHBORS]
    elif kind == "two_level_ivf":
        cells = structure.nlist
        # Clusters that hold about AROUND times as many cells as are looked into.
        yield [SearchParams(kind=kind, nprobe=n, coarse_nprobe=min(k, -(-AROUND * n * k // cells))) for n in _steps(cells)]
    elif kind == "ivf_pq":
        for rerank in RERANK:
            yield [SearchParams(kind=kind, nprobe=n, rerank=rerank) for n in _steps(k)]
    else:
        yield [SearchParams(kind=kind, nprobe=n) for n in _steps(k)]


def _unbeaten(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which points no other beats: none has as much recall in less time, or more in the same."""
    recall, time_taken = table["recall_at_10"].to_numpy(), table["milliseconds"].to_numpy()
    as_good = (recall[:, None] >= recall) & (time_taken[:, None] <= time_taken)
    better = as_good & ((recall[:, None] > recall) | (time_taken[:, None] < time_taken))
    return ~better.any(axis=0)


def autotune_curve(table: pd.DataFrame, chosen: str, wanted: float) -> Figure:
    """Draw recall against time of every point tried, the unbeaten ones joined, the chosen one ringed; `table` as of `Choice`."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker in zip(get_args(Kind), "sovD^P", strict=True):
        of = table[table["kind"] == kind]
        axes.scatter(of["milliseconds"], of["recall_at_10"], marker=marker, s=26, label=kind, alpha=0.8)
    edge = table[table["unbeaten"]].sort_values("milliseconds")
    axes.plot(edge["milliseconds"], edge["recall_at_10"], color=NEUTRAL, linewidth=1, zorder=0)
    axes.axhline(wanted, color=BAR, linestyle=":", linewidth=1)
    best = table[table["point"] == chosen].iloc[0]
    axes.scatter([best["milliseconds"]], [best["recall_at_10"]], s=170, facecolors="none", edgecolors=RIGHT, linewidths=2)
    axes.annotate(
        chosen, (best["milliseconds"], best["recall_at_10"]), xytext=(8, -14), textcoords="offset points", fontsize=9, color=RIGHT
    )
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a query, one by one")
    axes.set_ylabel("recall@10")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure

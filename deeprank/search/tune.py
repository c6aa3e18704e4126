"""The operating point, measured: which structure, and how thoroughly, finds what comparing with everything finds, fastest."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from deeprank.evaluation.figures import BAR, NEUTRAL, RIGHT
from deeprank.reporting import Reporter, track
from deeprank.search.cluster import Clusters
from deeprank.search.structures import Entries, Kind, Point, Vectors, build_structure, candidates, nearest_of
from deeprank.settings import Settings

logger = logging.getLogger(__name__)

NEIGHBOURS = 10
RECALL_QUERIES, TIMED_QUERIES, TOGETHER = 1000, 100, 64
# A kind is not searched more thoroughly than that.
ENOUGH = 0.9995
# Of the normal distribution: the recall wanted is reached with 95 % confidence, not by the luck of the queries tried.
ONE_SIDED = 1.645
RERANK = (4, 16)


class IndexSettings(Settings):
    """How to search.

    Attributes:
        search: auto: measured, the fastest with the recall wanted; or one point by hand, e.g. {kind: clusters, probes: 1}.
        recall: of the 10 nearest, the share that must be found.
        exact_within_ms: while comparing with every photograph takes no longer than that, auto does: embedding the photograph
            that is asked with takes several times as long.
        seed: of the queries that are tried, and of the product quantizer.

    """

    search: Literal["auto"] | Point = "auto"
    recall: float = Field(0.99, gt=0, le=1)
    exact_within_ms: float = Field(5.0, ge=0)
    seed: int = 0


@dataclass(frozen=True)
class Choice:
    """The point chosen, why, its FAISS structure (None for exact), and what was measured.

    `table` has a row a point: point (in words), kind, recall_at_10, recall_low (its one-sided 95 % bound), milliseconds (one query
    alone), per_second (queries in batches of 64), megabytes and build_seconds (of its structure), unbeaten (no other point has its
    recall in less time).
    """

    point: Point
    reason: str
    structure: "faiss.Index | None"
    table: pd.DataFrame


def exact(vectors: Vectors, queries: Vectors, k: int) -> Entries:
    """Return the k nearest entries of each query by comparing with every one of them."""
    _, found = faiss.knn(queries, np.asarray(vectors), min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    entries: Entries = found
    return entries


def choose(vectors: Vectors, clusters: Clusters, settings: IndexSettings, reporter: Reporter) -> Choice:
    """Measure recall@10 and time of many points, pick the fastest that reaches `settings.recall`, and report table and curve.

    The queries are photographs of the catalogue, each without itself.

    Args:
        vectors: (n, d) of unit length.
        clusters: of them.
        settings: what is wanted; a point by hand is taken as it is.
        reporter: hears index.recall_at_10, .milliseconds, .exact_milliseconds, .per_second, the notes index.kind and
            index.reason, the file index_choice.csv and its picture.

    """
    if isinstance(settings.search, Point):
        reporter.note("index.kind", str(settings.search))
        reporter.note("index.reason", "set by hand")
        return Choice(settings.search, "set by hand", None, pd.DataFrame())
    trial = _Trial(vectors, settings)
    rows, best, kept = [trial.measure(Point(kind="exact"), None, 0.0)], Point(kind="exact"), None
    fastest = float(rows[0]["milliseconds"])
    for kind in track([kind for kind in get_args(Kind) if kind != "exact"], "trying ways to search"):
        start = time.perf_counter()
        structure = build_structure(kind, vectors, clusters, settings.seed)
        built = time.perf_counter() - start
        for points in _sweeps(kind, clusters):
            for point in points:
                row = trial.measure(point, structure, built)
                rows.append(row)
                if row["recall_low"] >= settings.recall and row["milliseconds"] < fastest:
                    best, kept, fastest = point, structure, float(row["milliseconds"])
                if row["recall_at_10"] >= ENOUGH or row["milliseconds"] > 2 * rows[0]["milliseconds"]:
                    break
    table = pd.DataFrame(rows)
    table["unbeaten"] = _unbeaten(table)
    whole, reached = table.iloc[0], table[table["point"] == str(best)].iloc[0]
    if whole["milliseconds"] <= settings.exact_within_ms:
        reason = f"comparing with all {len(vectors):,} takes {whole['milliseconds']:.2f} ms, within the {settings.exact_within_ms:g} ms set"
        best, kept, reached = Point(kind="exact"), None, whole
    elif best.kind == "exact":
        reason = f"nothing faster reaches recall@10 {settings.recall:g}"
    else:
        reason = (
            f"the fastest with recall@10 {settings.recall:g}: {reached['recall_at_10']:.4f} in {reached['milliseconds']:.2f} ms, "
            f"comparing with all {len(vectors):,} takes {whole['milliseconds']:.2f} ms"
        )
    logger.info("search: %s; %s", best, reason)
    for name in ("recall_at_10", "milliseconds", "per_second"):
        reporter.metric(f"index.{name}", float(reached[name]))
    reporter.metric("index.exact_milliseconds", float(whole["milliseconds"]))
    reporter.note("index.kind", str(best))
    reporter.note("index.reason", reason)
    reporter.attach("index_choice.csv", table.to_csv(index=False))
    reporter.figure("index_choice", choice_curve(table, str(best), settings.recall))
    return Choice(best, reason, kept, table)


class _Trial:
    """Queries with their true neighbours, to try points on."""

    def __init__(self, vectors: Vectors, settings: IndexSettings) -> None:
        self.vectors = vectors
        self.asked = np.random.default_rng(settings.seed).permutation(len(vectors))[:RECALL_QUERIES]
        self.queries = np.ascontiguousarray(vectors[self.asked])
        self.wanted = min(NEIGHBOURS, len(vectors) - 1)
        _, distances = self._without_themselves(*self._find(Point(kind="exact"), None, self.queries))
        # By distance, not by entry: of two photographs equally far either will do.
        self.farthest = distances[:, -1] + 1e-6

    def _find(self, point: Point, structure: "faiss.Index | None", queries: Vectors) -> tuple[Entries, npt.NDArray[np.float64]]:
        k = self.wanted + 1
        found = exact(self.vectors, queries, k) if structure is None else candidates(structure, point, queries, k)
        return nearest_of(self.vectors, queries, found, k)

    def _without_themselves(self, entries: Entries, distances: npt.NDArray[np.float64]) -> tuple[Entries, npt.NDArray[np.float64]]:
        itself = entries == self.asked[:, None]
        # One that was not found leaves its place to the last.
        itself[~itself.any(axis=1), -1] = True
        shape = len(entries), entries.shape[1] - 1
        return entries[~itself].reshape(shape), distances[~itself].reshape(shape)

    def measure(self, point: Point, structure: "faiss.Index | None", built: float) -> dict[str, Any]:
        """Return a row of the table."""
        _, distances = self._without_themselves(*self._find(point, structure, self.queries))
        alone = [_seconds(self._find, point, structure, self.queries[i : i + 1]) for i in range(min(TIMED_QUERIES, len(self.asked)))]
        batch = self.queries[:TOGETHER]
        together = min(_seconds(self._find, point, structure, batch) for _ in range(5))
        found = (distances <= self.farthest[:, None]).mean(axis=1)
        return {
            "point": str(point),
            "kind": point.kind,
            "recall_at_10": float(found.mean()),
            "recall_low": float(found.mean() - ONE_SIDED * found.std() / len(found) ** 0.5),
            "milliseconds": float(np.median(alone)) * 1000,
            "per_second": len(batch) / together,
            "megabytes": (self.vectors.nbytes if structure is None else len(faiss.serialize_index(structure))) / 2**20,
            "build_seconds": built,
        }


def _seconds(job: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    job(*arguments)
    return time.perf_counter() - start


def _steps(last: int) -> list[int]:
    """Return 1, 2, 3, 4, 6, 8, 11, … up to last."""
    return sorted({*(round(2 ** (i / 2)) for i in range(2 * last.bit_length()) if round(2 ** (i / 2)) < last), last})


def _sweeps(kind: Kind, clusters: Clusters) -> Iterator[list[Point]]:
    """Yield series of points of a kind, each more and more thorough."""
    k, sections = len(clusters.centroids), len(clusters.section_centroids)
    if kind == "hnsw":
        yield [Point(kind=kind, breadth=breadth) for breadth in _steps(1024) if breadth > NEIGHBOURS]
    elif kind == "two-level":
        # Sections that hold about four times as many clusters as are looked into.
        yield [Point(kind=kind, probes=n, sections=min(sections, -(-4 * n * sections // k))) for n in _steps(k)]
    elif kind == "pq":
        for rerank in RERANK:
            yield [Point(kind=kind, probes=n, rerank=rerank) for n in _steps(k)]
    else:
        yield [Point(kind=kind, probes=n) for n in _steps(k)]


def _unbeaten(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which points no other beats: none has as much recall in less time, or more in the same."""
    recall, time_taken = table["recall_at_10"].to_numpy(), table["milliseconds"].to_numpy()
    as_good = (recall[:, None] >= recall) & (time_taken[:, None] <= time_taken)
    better = as_good & ((recall[:, None] > recall) | (time_taken[:, None] < time_taken))
    return ~better.any(axis=0)


def choice_curve(table: pd.DataFrame, chosen: str, wanted: float) -> Figure:
    """Draw recall against time of every point tried, the unbeaten ones joined, the chosen one ringed; `table` as of `Choice`."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker in zip(get_args(Kind), "sovD^", strict=True):
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

"""Choosing kind and search parameters by measurement: the fastest that reach the required recall@10."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from deeprank.plotting.index import autotune_curve
from deeprank.reporting import Reporter, track
from deeprank.search.arrays import Vectors
from deeprank.search.clusters import Clusters
from deeprank.search.faiss_index import Structure, build_structure
from deeprank.search.lance_index import LanceIndex
from deeprank.search.search_benchmark import SearchBenchmark, param_sweeps
from deeprank.search.search_params import EXACT_SEARCH, IndexKind, SearchParams
from deeprank.settings import Settings

logger = logging.getLogger(__name__)

# A sweep ends where it reaches this recall, or where its next parameters raise the recall by less than the minimum gain.
SUFFICIENT_RECALL, MIN_RECALL_GAIN = 0.9995, 0.0005
# A sweep ends where it is this many times as slow as exact search.
MAX_EXACT_LATENCY_RATIO = 2


class IndexSettings(Settings):
    """How to search the index.

    Attributes:
        backend: faiss: in memory; lance: vectors and lists stay in a table on disk or in an object store.
        search_params: auto: the fastest that reach `min_recall`, by measurement; or fixed, as {kind: ivf_flat, nprobe: 1}.
        min_recall: recall@10 to reach: the share of the 10 nearest images that is found.
        max_exact_latency_ms: auto chooses exact search while it takes at most this long; embedding a query takes several times as long.
        seed: random seed of the choice of measured queries, and of the product quantizer.

    """

    backend: Literal["faiss", "lance"] = "faiss"
    search_params: Literal["auto"] | SearchParams = "auto"
    min_recall: float = Field(0.99, gt=0, le=1)
    max_exact_latency_ms: float = Field(5.0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _check_backend(self) -> Self:
        params = self.search_params
        if isinstance(params, SearchParams) and (params.kind == "lance") != (self.backend == "lance"):
            raise ValueError(f"backend {self.backend} has no search of kind {params.kind}: kind lance is the only one of backend lance")
        return self


@dataclass(frozen=True)
class AutotuneResult:
    """The chosen search parameters, and the measurements.

    Attributes:
        search_params: the chosen ones.
        reason: for the choice, in words.
        structure: of the chosen kind; None for exact.
        measurements: a row for each SearchParams measured: search_params (in words), kind, recall_at_10, recall_at_10_low (its
            one-sided 95 % confidence bound), latency_ms (of one query alone), queries_per_second (in batches of 64), structure_mib and
            build_seconds (of its structure), pareto_optimal (no others have as high a recall in less time, or a higher one in the same).

    """

    search_params: SearchParams
    reason: str
    structure: Structure
    measurements: pd.DataFrame


def autotune(
    vectors: Vectors,
    clusters: Clusters,
    settings: IndexSettings,
    reporter: Reporter,
    lance_index: LanceIndex | None = None,
    query_forms: Sequence[Callable[[Vectors], Vectors]] = (np.asarray,),
) -> AutotuneResult:
    """Measure recall@10 and latency of many search parameters, and choose the fastest that reach `settings.min_recall`.

    The queries are images of the catalogue; the query image itself does not count as a neighbor. Reports the metrics
    index.recall_at_10, .latency_ms, .exact_latency_ms and .queries_per_second, the notes index.kind and index.reason, and the
    measurements as figure index_autotune and file index_autotune.csv.

    Args:
        vectors: (n, d) of unit length.
        clusters: of the vectors.
        settings: the required recall; fixed search parameters are returned without a measurement.
        reporter: that receives the above.
        lance_index: that holds the vectors, for backend lance.
        query_forms: as of `SearchBenchmark`.

    """
    if isinstance(settings.search_params, SearchParams):
        result = AutotuneResult(settings.search_params, "set manually", lance_index, pd.DataFrame())
        _report_choice(result, reporter)
        return result
    benchmark = SearchBenchmark(vectors, settings.seed, query_forms)
    rows, best, structure = _measure_kinds(benchmark, clusters, settings, lance_index)
    exact = rows[0]
    reason = _exact_reason(exact, len(vectors), settings) if lance_index is None else ""
    if reason:
        best, structure = exact, None
    else:
        reason = _reason(best, exact, len(vectors), settings)
    measurements = pd.DataFrame(rows)
    measurements["pareto_optimal"] = _pareto_front(measurements)
    measurements["search_params"] = measurements["search_params"].map(str)
    result = AutotuneResult(best["search_params"], reason, structure, measurements)
    logger.info("search parameters: %s; %s", result.search_params, reason)
    for name in ("recall_at_10", "latency_ms", "queries_per_second"):
        reporter.metric(f"index.{name}", float(best[name]))
    reporter.metric("index.exact_latency_ms", float(exact["latency_ms"]))
    _report_choice(result, reporter)
    reporter.attach("index_autotune.csv", measurements.to_csv(index=False))
    reporter.figure("index_autotune", autotune_curve(measurements, str(result.search_params), settings.min_recall))
    return result


def _report_choice(result: AutotuneResult, reporter: Reporter) -> None:
    reporter.note("index.kind", str(result.search_params))
    reporter.note("index.reason", result.reason)


def _measure_kinds(
    benchmark: SearchBenchmark, clusters: Clusters, settings: IndexSettings, lance_index: LanceIndex | None
) -> tuple[list[dict[str, Any]], dict[str, Any], Structure]:
    """Measure all kinds of a backend; returns the rows, exact search first, the best of them, and its structure."""
    rows = [benchmark.measure(EXACT_SEARCH, None, 0.0)]
    exact, best, best_structure = rows[0], rows[0], None
    kinds: list[IndexKind] = ["lance"] if lance_index else [kind for kind in get_args(IndexKind) if kind not in ("exact", "lance")]
    max_latency_ms = np.inf if lance_index else MAX_EXACT_LATENCY_RATIO * exact["latency_ms"]
    for kind in track(kinds, "measuring search parameters"):
        start = time.perf_counter()
        structure = lance_index or build_structure(kind, benchmark.vectors, clusters, settings.seed)
        build_seconds = time.perf_counter() - start
        for sweep in param_sweeps(kind, clusters, structure):
            measured = _measure_sweep(benchmark, sweep, structure, build_seconds, max_latency_ms, settings.min_recall)
            rows += measured
            # Exact search is no candidate for backend lance: it would read the whole table.
            fastest = _fastest(measured if lance_index else [best, *measured], settings.min_recall)
            if fastest is not best:
                best, best_structure = fastest, structure
    return rows, best, best_structure


def _measure_sweep(
    benchmark: SearchBenchmark,
    sweep: list[SearchParams],
    structure: Structure,
    build_seconds: float,
    max_latency_ms: float,
    min_recall: float,
) -> list[dict[str, Any]]:
    """Measure search parameters of increasing recall, until more of them is of no use or takes longer than `max_latency_ms`."""
    rows: list[dict[str, Any]] = []
    for search_params in sweep:
        rows.append(benchmark.measure(search_params, structure, build_seconds))
        recalls = [row["recall_at_10"] for row in rows]
        is_flat = recalls[-1] < max(recalls[:-1], default=-1) + MIN_RECALL_GAIN
        is_reached = rows[-1]["recall_at_10_low"] >= min_recall and (recalls[-1] >= SUFFICIENT_RECALL or is_flat)
        # Compression limits the recall, however many lists are visited.
        is_limited = is_flat and search_params.kind == "ivf_pq"
        if is_reached or is_limited or rows[-1]["latency_ms"] > max_latency_ms:
            break
    return rows


def _fastest(rows: list[dict[str, Any]], min_recall: float) -> dict[str, Any]:
    """Return the row with the lowest latency of those that reach the recall; where none does, the one with the highest recall."""

    def key(row: dict[str, Any]) -> tuple[bool, float]:
        is_reached = row["recall_at_10_low"] >= min_recall
        return not is_reached, row["latency_ms"] if is_reached else -row["recall_at_10_low"]

    return min(rows, key=key)


def _exact_reason(exact: dict[str, Any], num_images: int, settings: IndexSettings) -> str:
    """Return why exact search is fast enough; empty where it is not."""
    if exact["latency_ms"] > settings.max_exact_latency_ms:
        return ""
    return f"{_exact_latency(exact, num_images)}, within the {settings.max_exact_latency_ms:g} ms set"


def _reason(best: dict[str, Any], exact: dict[str, Any], num_images: int, settings: IndexSettings) -> str:
    if best["search_params"].kind == "exact":
        return f"nothing faster reaches recall@10 {settings.min_recall:g}"
    result = f"{best['recall_at_10']:.4f} in {best['latency_ms']:.2f} ms; {_exact_latency(exact, num_images)}"
    if best["recall_at_10_low"] < settings.min_recall:
        return f"nothing reaches recall@10 {settings.min_recall:g}; this is the highest: {result}"
    return f"the fastest with recall@10 {settings.min_recall:g}: {result}"


def _exact_latency(exact: dict[str, Any], num_images: int) -> str:
    return f"comparing with all {num_images:,} images takes {exact['latency_ms']:.2f} ms"


def _pareto_front(measurements: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows no other row beats: none has as high a recall in less time, or a higher one in the same time."""
    recall, latency = measurements["recall_at_10"].to_numpy(), measurements["latency_ms"].to_numpy()
    is_as_good = (recall[:, None] >= recall) & (latency[:, None] <= latency)
    is_better = is_as_good & ((recall[:, None] > recall) | (latency[:, None] < latency))
    return ~is_better.any(axis=0)

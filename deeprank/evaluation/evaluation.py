"""An evaluation: retrieval metrics of test queries against a gallery, with confidence intervals."""

import json
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.evaluation.intervals import Estimate, binomial_interval, estimate
from deeprank.evaluation.metrics import query_table, score_at_top, triplet_correct
from deeprank.evaluation.neighbors import nearest
from deeprank.row_numbers import CatalogueRows
from deeprank.triplets.relevance import RelevanceWeights, coarse_labels, encode_hierarchy
from deeprank.triplets.sampling import SampleSettings, sample_triplets

# Columns of the query table that are no metrics.
ID_COLUMNS = ("row", "label", "class_group", "duplicate_group", "nearest")
# The metric that tables of classes give an interval of, and that the gate compares.
MAIN_METRIC = "fine.recall_at_1"
QUERIES, OTHER_QUERIES = "queries.parquet", "other_queries.parquet"
# Probability of each tail of a 95 % interval.
TAIL = 0.025


@dataclass(frozen=True)
class Evaluation:
    """Metrics with intervals, and the tables behind them.

    Attributes:
        metrics: by name, the same in MLflow, in the file and in `deeprank evaluate --json`: fine.recall_at_1, _5, _10,
            fine.map_at_r, coarse.…, ndcg_at_10, triplet_accuracy, triplet_accuracy_same_parent (absent where no two classes
            of the queries share a parent), score_at_top_30 (-1 to 1).
        queries: one row per query: row (of the catalogue's frame), label, class_group (the coarse class), duplicate_group (of
            near-duplicates), nearest (row of the first neighbor), and the value of each metric that is defined per query.
        other_queries: the same of images of another kind, rows of their own catalogue; None where there are none.

    """

    metrics: dict[str, Estimate]
    queries: pd.DataFrame
    other_queries: pd.DataFrame | None = None

    def per_class(self) -> pd.DataFrame:
        """Return one row per class, worst first.

        Returns:
            Columns label, the mean of each query metric, fine.recall_at_1.low and .high (interval), queries (their number).

        """
        return self._means("label")

    def per_class_group(self) -> pd.DataFrame:
        """Return the table of `per_class` by class group (coarse class), with class_group as the first column."""
        return self._means("class_group")

    def _means(self, key: str) -> pd.DataFrame:
        by_key = self.queries.groupby(key)
        intervals = {name: _recall_estimate(queries) for name, queries in by_key}
        bounds = pd.DataFrame({"low": [e.low for e in intervals.values()], "high": [e.high for e in intervals.values()]}, list(intervals))
        table = by_key[[name for name in self.queries if name not in ID_COLUMNS]].mean()
        table = table.join(bounds.add_prefix(f"{MAIN_METRIC}.")).assign(queries=by_key.size())
        return table.sort_values(MAIN_METRIC, kind="stable").rename_axis(key).reset_index()

    def nested(self) -> dict[str, object]:
        """Return the metrics as `deeprank evaluate --json` prints them: {"fine": {"recall_at_1": …}, …, "intervals": {…}}."""
        result: dict[str, object] = {}
        for name, metric in self.metrics.items():
            level, _, key = name.rpartition(".")
            target = result.setdefault(level, {}) if level else result
            assert isinstance(target, dict)
            # JSON has no NaN: an undefined metric is null.
            target[key] = None if isnan(metric.value) else metric.value
        result["intervals"] = {name: [metric.low, metric.high] for name, metric in self.metrics.items() if not isnan(metric.value)}
        result["queries"] = len(self.queries)
        return result

    def save(self, folder: Path) -> None:
        """Write metrics.json, queries.parquet, per_class.csv, per_class_group.csv, and other_queries.parquet where there are any."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps({name: asdict(metric) for name, metric in self.metrics.items()}, indent=1))
        self.queries.to_parquet(folder / QUERIES, index=False)
        if self.other_queries is not None:
            self.other_queries.to_parquet(folder / OTHER_QUERIES, index=False)
        self.per_class().to_csv(folder / "per_class.csv", index=False)
        self.per_class_group().to_csv(folder / "per_class_group.csv", index=False)

    @classmethod
    def load(cls, folder: Path) -> "Evaluation":
        """Read a saved evaluation."""
        metrics = {name: Estimate(**values) for name, values in json.loads((folder / "metrics.json").read_text()).items()}
        has_other = (folder / OTHER_QUERIES).exists()
        return cls(metrics, pd.read_parquet(folder / QUERIES), pd.read_parquet(folder / OTHER_QUERIES) if has_other else None)


def empty_evaluation() -> Evaluation:
    """Return an evaluation of no query: no metrics, and a query table with the columns that the promotion gate reads."""
    kinds = {"row": "int64", "nearest": "int64", MAIN_METRIC: "float64"}
    columns = {name: pd.Series([], dtype=kinds.get(name, "object")) for name in (*ID_COLUMNS, MAIN_METRIC)}
    return Evaluation({}, pd.DataFrame(columns))


def _recall_estimate(queries: pd.DataFrame) -> Estimate:
    """Return the mean of MAIN_METRIC with an interval at least as wide as the binomial interval over the duplicate groups.

    The bootstrap interval alone is too narrow where there are few queries.
    """
    bootstrap = estimate(queries[MAIN_METRIC].to_numpy(), np.unique(queries["duplicate_group"], return_inverse=True)[1])
    group_means = queries.groupby("duplicate_group")[MAIN_METRIC].mean().dropna()
    if not len(group_means):
        return bootstrap
    low, high = binomial_interval(round(group_means.sum()), len(group_means), TAIL)
    return replace(bootstrap, low=min(bootstrap.low, low), high=max(bootstrap.high, high))


def evaluate(
    frame: pd.DataFrame,
    embeddings: npt.NDArray[np.float32],
    queries: CatalogueRows,
    gallery: CatalogueRows,
    triplets: npt.NDArray[np.int64],
    query_embeddings: npt.NDArray[np.float32] | None = None,
    own_positions: npt.NDArray[np.int64] | None = None,
) -> Evaluation:
    """Compute every metric with its interval.

    Args:
        frame: of the catalogue; columns label and duplicate_group.
        embeddings: (len(frame), d) of unit length; only the rows in queries, gallery and triplets are read.
        queries, gallery: rows of the frame.
        triplets: (m, 3) rows of the frame, all of them in queries.
        query_embeddings: (len(frame), d) the images as queries, see `Embedder.as_queries`; None: they are `embeddings`.
        own_positions: as of `query_table`, where queries are in the gallery.

    """
    if query_embeddings is None:
        query_embeddings = embeddings
    labels = frame["label"].tolist()
    codes, duplicate_groups = encode_hierarchy(labels), np.unique(frame["duplicate_group"], return_inverse=True)[1]
    per_query = query_table(
        query_embeddings[queries], codes[queries], embeddings[gallery], codes[gallery], RelevanceWeights(), own_positions
    )
    metrics = {name: estimate(per_query[name].to_numpy(), duplicate_groups[queries], is_proportion=True) for name in per_query}
    metrics |= _triplet_metrics(frame, embeddings, query_embeddings, queries, triplets, duplicate_groups)
    ids = {
        "row": queries,
        "label": frame["label"].to_numpy()[queries],
        "class_group": np.array(coarse_labels(labels), dtype=object)[queries],
        "nearest": nearest(query_embeddings[queries], embeddings, gallery, own_positions),
        "duplicate_group": frame["duplicate_group"].to_numpy()[queries],
    }
    return Evaluation(metrics, pd.DataFrame(ids).join(per_query))


def _triplet_metrics(
    frame: pd.DataFrame,
    embeddings: npt.NDArray[np.float32],
    query_embeddings: npt.NDArray[np.float32],
    queries: CatalogueRows,
    triplets: npt.NDArray[np.int64],
    duplicate_groups: npt.NDArray[np.int64],
) -> dict[str, Estimate]:
    def over_triplets(values: npt.NDArray[np.float64], triplets: npt.NDArray[np.int64]) -> Estimate:
        return estimate(values, duplicate_groups[triplets[:, 0]], is_proportion=True)

    metrics = {"triplet_accuracy": over_triplets(triplet_correct(query_embeddings, embeddings, triplets), triplets)}
    same_parent = same_parent_triplets(frame, queries)
    if len(same_parent):
        metrics["triplet_accuracy_same_parent"] = over_triplets(triplet_correct(query_embeddings, embeddings, same_parent), same_parent)
    # The interval is computed for a proportion from 0 to 1; the score is this proportion scaled to -1 to 1.
    score = over_triplets((score_at_top(query_embeddings, embeddings, triplets, queries) + 1) / 2, triplets)
    metrics["score_at_top_30"] = replace(score, value=2 * score.value - 1, low=2 * score.low - 1, high=2 * score.high - 1)
    return metrics


def same_parent_triplets(frame: pd.DataFrame, rows: CatalogueRows) -> npt.NDArray[np.int64]:
    """Draw triplets whose negative is of another class with the same parent as the query's class; the draw is deterministic.

    Args:
        frame: of the catalogue; column label.
        rows: of the frame, from which query, positive and negative are drawn.

    Returns:
        (m, 3) rows of the frame: two triplets for each query that has such a negative.

    """
    settings = SampleSettings(same_parent_fraction=1, negatives=1)
    positions = sample_triplets(frame[["label"]].iloc[rows].assign(split="test"), settings).frame
    triplets: npt.NDArray[np.int64] = rows[positions[["query", "positive", "negative"]].to_numpy()]
    coarse = np.unique(coarse_labels(frame["label"].tolist()), return_inverse=True)[1]
    # A query without such a negative has a negative of another parent.
    return triplets[coarse[triplets[:, 0]] == coarse[triplets[:, 2]]]

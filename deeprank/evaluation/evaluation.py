"""One evaluation: how well the queries of the test split find their like in the train split, and by what right we say so."""

import json
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.evaluation.intervals import Estimate, estimate, share_interval
from deeprank.evaluation.metrics import query_table, top_score, triplet_correct
from deeprank.evaluation.neighbors import nearest
from deeprank.triplets.relevance import RelevanceWeights, coarse_labels, encode_hierarchy
from deeprank.triplets.sampling import SampleSettings, sample_triplets

# What the table of queries says beside metrics.
KEYS = ("row", "label", "coarse", "group", "nearest")
# What tables of classes and groups give an interval of, and what the gate compares.
METRIC = "fine.recall_at_1"


@dataclass(frozen=True)
class Evaluation:
    """Metrics with intervals, and the tables behind them.

    Attributes:
        metrics: by name, the same in MLflow, in the file and in `deeprank evaluate --json`: fine.recall_at_1, _5, _10,
            fine.map_at_r, coarse.…, ndcg_at_10, triplet_accuracy, triplet_accuracy_same_parent (absent where no two classes
            of the queries share a parent), score_at_top_30 (-1 to 1).
        queries: a row a query: row (of the catalogue's frame), label, coarse (label), group (of near-duplicates), nearest
            (row of its first neighbor), and its value of each metric that queries have.

    """

    metrics: dict[str, Estimate]
    queries: pd.DataFrame

    def per_class(self) -> pd.DataFrame:
        """Return each class's mean of every query metric, the interval of fine.recall_at_1 (.low, .high), and the number of
        its queries, worst first.
        """  # noqa: D205
        return self._means("label")

    def per_group(self) -> pd.DataFrame:
        """Return the same of each coarse class, whose name is in `label` too."""
        return self._means("coarse")

    def _means(self, key: str) -> pd.DataFrame:
        split = self.queries.groupby(key)
        found = {label: _of_few(part) for label, part in split}
        bounds = pd.DataFrame({"low": [one.low for one in found.values()], "high": [one.high for one in found.values()]}, index=list(found))
        table = split[[name for name in self.queries if name not in KEYS]].mean()
        table = table.join(bounds.add_prefix(f"{METRIC}.")).assign(queries=split.size())
        return table.sort_values(METRIC, kind="stable").rename_axis("label").reset_index()

    def nested(self) -> dict[str, object]:
        """Return the metrics as `deeprank evaluate --json` prints them: {"fine": {"recall_at_1": …}, …, "intervals": {…}}."""
        out: dict[str, object] = {}
        for name, metric in self.metrics.items():
            level, _, key = name.rpartition(".")
            target = out.setdefault(level, {}) if level else out
            assert isinstance(target, dict)
            # JSON has no NaN: what could not be measured is null.
            target[key] = None if isnan(metric.value) else metric.value
        out["intervals"] = {name: [metric.low, metric.high] for name, metric in self.metrics.items() if not isnan(metric.value)}
        out["queries"] = len(self.queries)
        return out

    def save(self, folder: Path) -> None:
        """Write metrics.json, queries.parquet, per_class.csv and per_group.csv."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps({name: asdict(metric) for name, metric in self.metrics.items()}, indent=1))
        self.queries.to_parquet(folder / "queries.parquet", index=False)
        self.per_class().to_csv(folder / "per_class.csv", index=False)
        self.per_group().to_csv(folder / "per_group.csv", index=False)

    @classmethod
    def load(cls, folder: Path) -> "Evaluation":
        """Read a saved evaluation."""
        metrics = {name: Estimate(**values) for name, values in json.loads((folder / "metrics.json").read_text()).items()}
        return cls(metrics, pd.read_parquet(folder / "queries.parquet"))


def _of_few(queries: pd.DataFrame) -> Estimate:
    """Return the mean of METRIC, 0 or 1 a query, with an interval no narrower than of a binomial share of their groups."""
    found = estimate(queries[METRIC].to_numpy(), np.unique(queries["group"], return_inverse=True)[1])
    known = queries.groupby("group")[METRIC].mean().dropna()
    if not len(known):
        return found
    low, high = share_interval(round(known.sum()), len(known), 0.025)
    return replace(found, low=min(found.low, low), high=max(found.high, high))


def evaluate(
    frame: pd.DataFrame,
    embeddings: npt.NDArray[np.float32],
    queries: npt.NDArray[np.int64],
    gallery: npt.NDArray[np.int64],
    triplets: npt.NDArray[np.int64],
) -> Evaluation:
    """Compute every metric with its interval.

    Args:
        frame: of the catalogue; columns label and group.
        embeddings: (len(frame), d) of unit length; only the rows that the other arguments name are looked at.
        queries, gallery: rows of the frame.
        triplets: (m, 3) rows of the frame, all of them among the queries.

    """
    labels = frame["label"].tolist()
    codes, groups = encode_hierarchy(labels), np.unique(frame["group"], return_inverse=True)[1]
    keys = {"row": queries, "label": frame["label"].to_numpy()[queries], "coarse": np.array(coarse_labels(labels), dtype=object)[queries]}
    keys["nearest"] = nearest(embeddings, queries, gallery)
    found = query_table(embeddings[queries], codes[queries], embeddings[gallery], codes[gallery], RelevanceWeights())
    metrics = {name: estimate(found[name].to_numpy(), groups[queries], share=True) for name in found}

    def of_triplets(values: npt.NDArray[np.float64], drawn: npt.NDArray[np.int64]) -> Estimate:
        return estimate(values, groups[drawn[:, 0]], share=True)

    metrics["triplet_accuracy"] = of_triplets(triplet_correct(embeddings, triplets), triplets)
    alike = same_parent_triplets(frame, queries)
    if len(alike):
        metrics["triplet_accuracy_same_parent"] = of_triplets(triplet_correct(embeddings, alike), alike)
    # The interval is of a share, 0 to 1; the score is that share from -1 to 1.
    top = of_triplets((top_score(embeddings, triplets, queries) + 1) / 2, triplets)
    metrics["score_at_top_30"] = replace(top, value=2 * top.value - 1, low=2 * top.low - 1, high=2 * top.high - 1)
    return Evaluation(metrics, pd.DataFrame(keys | {"group": frame["group"].to_numpy()[queries]}).join(found))


def same_parent_triplets(frame: pd.DataFrame, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Draw triplets among some rows whose negative is of another class of the query's coarse class, always the same ones.

    Args:
        frame: of the catalogue; column label.
        rows: of the frame.

    Returns:
        (m, 3) rows of the frame: two for each query of which there is one.

    """
    drawn = sample_triplets(frame[["label"]].iloc[rows].assign(split="test"), SampleSettings(same_parent_fraction=1, negatives=1)).frame
    triplets = rows[drawn[["query", "positive", "negative"]].to_numpy()]
    coarse = np.unique(coarse_labels(frame["label"].tolist()), return_inverse=True)[1]
    # Queries without such a negative were given another.
    return triplets[coarse[triplets[:, 0]] == coarse[triplets[:, 2]]]

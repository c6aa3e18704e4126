"""One evaluation: how well the queries of the test split find their like in the train split, and by what right we say so."""

import json
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.evaluation.intervals import Estimate, estimate
from deeprank.evaluation.metrics import query_table, triplet_correct
from deeprank.triplets.relevance import coarse_labels

# Metric names are the same in MLflow, in the evaluation's file and in `deeprank evaluate --json`.
LEVELS = ("fine", "coarse")


@dataclass(frozen=True)
class Evaluation:
    """Metrics with intervals, and the tables behind them.

    Attributes:
        metrics: by name, e.g. fine.recall_at_1, coarse.map_at_r, triplet_accuracy.
        queries: a row a query: row (of the catalogue's frame), label, and each metric's value, e.g. fine.recall_at_1.

    """

    metrics: dict[str, Estimate]
    queries: pd.DataFrame

    def per_class(self) -> pd.DataFrame:
        """Return each class's mean of every query metric, and its number of queries, worst fine.recall_at_1 first."""
        columns = [name for name in self.queries if name not in ("row", "label")]
        table = self.queries.groupby("label")[columns].mean().assign(queries=self.queries.groupby("label").size())
        return table.sort_values("fine.recall_at_1").reset_index()

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
        """Write metrics.json, queries.parquet and per_class.csv."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps({name: asdict(metric) for name, metric in self.metrics.items()}, indent=1))
        self.queries.to_parquet(folder / "queries.parquet", index=False)
        self.per_class().to_csv(folder / "per_class.csv", index=False)

    @classmethod
    def load(cls, folder: Path) -> "Evaluation":
        """Read a saved evaluation."""
        metrics = {name: Estimate(**values) for name, values in json.loads((folder / "metrics.json").read_text()).items()}
        return cls(metrics, pd.read_parquet(folder / "queries.parquet"))


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
        triplets: (m, 3) rows of the frame.

    """
    labels = frame["label"].tolist()
    groups = np.unique(frame["group"], return_inverse=True)[1]
    table = pd.DataFrame({"row": queries, "label": frame["label"].iloc[queries].to_numpy()})
    metrics: dict[str, Estimate] = {}
    for level, names in zip(LEVELS, (labels, coarse_labels(labels)), strict=True):
        codes = np.unique(names, return_inverse=True)[1]
        found = query_table(embeddings[queries], codes[queries], embeddings[gallery], codes[gallery])
        for name in found:
            table[f"{level}.{name}"] = found[name]
            metrics[f"{level}.{name}"] = estimate(found[name].to_numpy(), groups[queries])
    correct = triplet_correct(embeddings, triplets)
    metrics["triplet_accuracy"] = estimate(correct, groups[triplets[:, 0]])
    return Evaluation(metrics, table)

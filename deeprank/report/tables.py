"""Reported metrics as formatted numbers, and as tables of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from deeprank.reporting import Record

# Columns of an evaluation, by the prefix of the metric names.
MODEL_PREFIXES = {"trained model": "", "frozen baseline": "baseline.", "gain": "gain."}
DISPLAY_NAMES = {
    "map_at_r": "mAP@R",
    "triplet_accuracy_same_parent": "triplet accuracy, same parent folder",
    "score_at_top_30": "score-at-top-30",
}
# Titles of the tables of an evaluation, by the part of a metric's name before the last dot.
TABLE_TITLES = {
    "fine": "Same class (fine)",
    "coarse": "Same parent folder (coarse)",
    "": "Ranking and triplets",
    "seen": "Ranking and triplets, classes in training",
    "seen.fine": "Same class (fine), classes in training",
    "seen.coarse": "Same parent folder (coarse), classes in training",
    "unseen": "Ranking and triplets, classes held out of training",
    "unseen.fine": "Same class (fine), classes held out of training",
    "unseen.coarse": "Same parent folder (coarse), classes held out of training",
    "other": "Images of another kind: ranking and triplets",
    "other.fine": "Images of another kind: same class (fine)",
    "other.coarse": "Images of another kind: same parent folder (coarse)",
}
# The note that is shown above a table, by the same part of a metric's name.
TABLE_NOTES = {"other.fine": "other.result"}
CLASS_GROUP_METRIC = re.compile(r"per_class_group/(?P<class_group>.+)\.(?P<metric>\w+)")


@dataclass(frozen=True)
class Number:
    """A formatted number, and the name that it has in MLflow."""

    name: str
    text: str


@dataclass(frozen=True)
class Metric:
    """A metric, and the ends of its 95 % interval where one was reported."""

    value: Number
    interval: tuple[Number, Number] | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        text: row header in words; empty where the name alone is the header.
        name: of the metric in MLflow; empty where the row is of no single metric.
        cells: the metrics; None where nothing was reported.

    """

    text: str
    name: str
    cells: Sequence[Metric | None]


@dataclass(frozen=True)
class Table:
    """A table of metrics.

    Attributes:
        title: of the table; may be empty.
        columns: headers of the cells.
        rows: of the table.
        row_header: header of the first column.
        text: sentence above the table; may be empty.

    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    row_header: str = "metric"
    text: str = ""


def last_values(records: Iterable[Record]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the last value of each metric, which is the one that MLflow displays, and all notes."""
    values: dict[str, float] = {}
    notes: dict[str, str] = {}
    for record in records:
        values |= {point.name: point.value for point in record.points}
        notes |= record.notes
    return values, notes


def format_number(name: str, value: float, has_interval: bool = False) -> str:
    """Return a number as text: four decimals for proportions, commas for thousands, a sign for gains.

    Args:
        name: of the metric.
        value: the number; NaN is a dash.
        has_interval: the number has an interval or is the end of one; whole numbers keep their decimals.

    """
    if isnan(value):
        return "–"
    sign = "+" if "gain" in name.split(".") else ""
    if value == int(value) and not has_interval:
        return f"{value:{sign},.0f}"
    if 0 < abs(value) < 1e-3:
        return f"{value:{sign}.1e}"
    return f"{value:{sign},.1f}" if abs(value) >= 10 else f"{value:{sign}.4f}"


def format_metrics(values: Mapping[str, float]) -> dict[str, Metric]:
    """Return formatted metrics by name; X.low and X.high are the interval of X."""
    metrics = {}
    for name, value in values.items():
        if name.endswith((".low", ".high")) and name.rpartition(".")[0] in values:
            continue
        bounds = [Number(end, format_number(end, values[end], True)) for end in (f"{name}.low", f"{name}.high") if end in values]
        interval = (bounds[0], bounds[1]) if len(bounds) == 2 and not isnan(value) else None
        metrics[name] = Metric(Number(name, format_number(name, value, bool(bounds))), interval)
    return metrics


def compare_models(metrics: Mapping[str, Metric], name: str) -> list[Metric | None]:
    """Return a metric of the trained model and of the frozen baseline, and the gain."""
    return [metrics.get(f"{prefix}{name}") for prefix in MODEL_PREFIXES.values()]


def display_name(name: str) -> str:
    """Return a metric's name as it is written in papers: fine.recall_at_1 is recall@1."""
    last = name.rpartition(".")[2]
    return DISPLAY_NAMES.get(last) or last.replace("ndcg", "nDCG").replace("_at_", "@").replace("_", " ")


def step_tables(record: Record) -> list[Table]:
    """Return the tables of a step: single metrics, curves with their first and last epoch, and metrics by class group."""
    curves: dict[str, list[float]] = {}
    for point in record.points:
        if point.step is not None:
            curves.setdefault(point.name, []).append(point.value)
    single = format_metrics({point.name: point.value for point in record.points if point.step is None})
    class_groups, metrics = _split_class_groups(single)
    tables = []
    if metrics:
        tables.append(Table("", ("value",), [Row("", name, [metric]) for name, metric in metrics.items()]))
    if curves:
        ends = {name: [Metric(Number(name, format_number(name, values[i]))) for i in (0, -1)] for name, values in curves.items()}
        tables.append(Table("", ("first epoch", "last epoch"), [Row("", name, cells) for name, cells in ends.items()]))
    return tables + class_groups


def evaluation_tables(record: Record) -> list[Table]:
    """Return the tables of an evaluation: one for each level (fine, coarse, …), the trained model beside the frozen baseline."""
    class_groups, metrics = _split_class_groups(format_metrics({point.name: point.value for point in record.points}))
    prefixes = tuple(prefix for prefix in MODEL_PREFIXES.values() if prefix)
    # A dictionary without values is a set in order of insertion.
    names_by_level: dict[str, dict[str, None]] = {}
    for name in metrics:
        own_name = name.removeprefix(next((prefix for prefix in prefixes if name.startswith(prefix)), ""))
        names_by_level.setdefault(own_name.rpartition(".")[0], {})[own_name] = None
    text_of = {level: record.notes.get(note, "") for level, note in TABLE_NOTES.items()}
    return [_level_table(level, list(names), metrics, text_of.get(level, "")) for level, names in names_by_level.items()] + class_groups


def _level_table(level: str, names: Sequence[str], metrics: Mapping[str, Metric], note: str) -> Table:
    """Return a table of metrics without the columns that are empty, with a note as its text."""
    cells_of = {name: compare_models(metrics, name) for name in names}
    columns = [i for i in range(len(MODEL_PREFIXES)) if any(cells[i] for cells in cells_of.values())]
    rows = []
    for name, cells in cells_of.items():
        text = display_name(name)
        rows.append(Row("" if text == name else text, name, [cells[i] for i in columns]))
    headers = tuple(MODEL_PREFIXES)
    return Table(TABLE_TITLES.get(level, level), tuple(headers[i] for i in columns), rows, text=note)


def _split_class_groups(metrics: Mapping[str, Metric]) -> tuple[list[Table], dict[str, Metric]]:
    """Return metrics named per_class_group/NAME.METRIC as a table with a row per class group, and the other metrics."""
    groups: dict[str, dict[str, Metric]] = {}
    others = {}
    for name, metric in metrics.items():
        match = CLASS_GROUP_METRIC.fullmatch(name)
        if match:
            groups.setdefault(match["class_group"], {})[match["metric"]] = metric
        else:
            others[name] = metric
    columns = list(dict.fromkeys(column for group in groups.values() for column in group))
    rows = [Row(name, "", [group.get(column) for column in columns]) for name, group in groups.items()]
    tables = [Table("By class group", tuple(map(display_name, columns)), rows, row_header="class group")] if rows else []
    return tables, others

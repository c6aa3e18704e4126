"""The report of a run as one HTML file, and the model card: both made from what the steps reported, and from nothing else."""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isnan
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from deeprank.reporting import Record

HEADLINES = ("fine.recall_at_1", "fine.map_at_r", "ndcg_at_10", "triplet_accuracy")
# Of one metric: of the new model, of the frozen net, and what training bought.
BESIDE = {"trained": "", "frozen net": "baseline.", "gain": "gain."}
WEBP_LIMIT = 16383
NAMES = {
    "fine": "Same class",
    "coarse": "Same parent folder",
    "": "Ranking and triplets",
    "seen": "Ranking and triplets, classes trained on",
    "seen.fine": "Same class, of classes trained on",
    "seen.coarse": "Same parent folder, of classes trained on",
    "unseen": "Ranking and triplets, classes never trained on",
    "unseen.fine": "Same class, of classes never trained on",
    "unseen.coarse": "Same parent folder, of classes never trained on",
    "map_at_r": "mAP@R",
    "triplet_accuracy": "triplet accuracy",
}
# Section, its title, the step that it tells of, and what is said where the run has no such record.
SECTIONS = (
    ("data", "Data", "ingest", "This run reported nothing about its catalogue."),
    ("leaks", "Leaks between the splits", "leakage", "No leak check belongs to this run."),
    ("drift", "Drift", "drift", "No drift check belongs to this run."),
    ("triplets", "Triplets", "sample_triplets", "This run reported no triplets."),
    ("training", "Training", "train", "This run trained nothing."),
    ("evaluation", "Evaluation", "evaluate", "This run evaluated nothing."),
    ("gate", "Gate", "register", "No gate belongs to this run: the model was compared with no champion."),
    ("clusters", "Clusters", "cluster", "This run reported no clusters."),
)
CAPTIONS = {
    "images": "Some of the catalogue's images, with their classes.",
    "leaks": "Images of val or test beside the image of train that they are like.",
    "drift": "New images beside what the champion was trained on.",
    "drift_classes": "How far each class has moved.",
    "triplet_grid": "Some of the triplets: the query is to lie nearer to the positive (green) than to the negative (red).",
    "curves": "Each metric over the epochs.",
    "recall_curve": "The share of queries with an image of their own class among the first k neighbors, trained and frozen.",
    "gained_and_lost": "Queries that only the new model gets right, and those that only the one before did; green is the right class.",
    "confusion": "Which classes are taken for which most often; red pairs are of different folders, and graver.",
    "neighbor_gallery": "The best and the worst queries with their nearest neighbors; green is the right class, red a wrong one.",
    "explained": "Why the surest right and the surest wrong answers were given: the brighter a region glows, the more of the likeness "
    "comes from it.",
    "per_class": "Recall@1 of each class, the worst on top; in brackets its number of queries.",
    "embedding_map": "The test images' embeddings in the plane: what lies close together the model takes for alike.",
    "cluster_choice": "The silhouette of every number of clusters tried; the greatest, ringed, was taken.",
    "cluster_tree": "The clusters joined to a tree: a typical image, what most of each is, and how many. A color is a section.",
    "cluster_map": "Images in the plane, the color their section; of each large cluster a typical image and its number.",
    "index_choice": "Ways to search that were tried: share of the true ten nearest found, and time. Ringed: the one taken.",
    "cluster_montage": "A line for each of the largest clusters, the images nearest to its center first.",
}
GROUP = re.compile(r"per_group/(?P<group>.+)\.(?P<metric>\w+)")


@dataclass(frozen=True)
class Number:
    """A reported number as it is shown: the name it has in MLflow, and its text."""

    name: str
    text: str


@dataclass(frozen=True)
class Family:
    """A metric with its 95 % interval where one was reported."""

    value: Number
    interval: tuple[Number, Number] | None = None


# Words for a line, its metric's name in MLflow, and its cells; None where nothing was reported.
Row = tuple[str, str, Sequence[Family | None]]


@dataclass(frozen=True)
class Table:
    """Lines of metrics."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    of: str = "metric"


@dataclass(frozen=True)
class Picture:
    """A picture under its fixed name, as it stands in the page."""

    name: str
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """What one step reported."""

    anchor: str
    title: str
    missing: str
    tables: list[Table]
    pictures: list[Picture]


def write_report(file: Path, title: str, records: Sequence[tuple[str, Record]]) -> None:
    """Write one HTML file that needs no server, no script and no other file.

    Args:
        file: where to.
        title: of the page, e.g. the model's name and the run's.
        records: name of the step, what it reported; a step that did not run is left out, and the page says so.

    """
    told = dict(records)
    points, notes = merged(record for _, record in records)
    found = families(points)
    known = {step for _, _, step, _ in SECTIONS}
    sections = [_section(*section, told.get(section[2])) for section in SECTIONS]
    sections += [_section(step, step.replace("_", " ").capitalize(), step, "", record) for step, record in records if step not in known]
    page = _environment(autoescape=True).get_template("report.html.j2")
    text = page.render(
        title=title,
        notes=notes,
        headlines=[(label(name), name, *beside(found, name)) for name in HEADLINES if name in found],
        sections=sections,
        facts=[(step, name, value) for step, record in records for name, value in record.notes.items()],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def model_card(name: str, records: Iterable[Record], parameters: Mapping[str, str], images: int, classes: int) -> str:
    """Return the model card, Markdown.

    Args:
        name: of the model.
        records: of the steps that made it, the gate's among them.
        parameters: the run's settings with dotted names, e.g. train.seed.
        images, classes: how many it was trained on.

    """
    points, notes = merged(records)
    found = families(points)
    names = [
        metric
        for metric, family in found.items()
        if family.interval and not metric.startswith(("baseline.", "gain.", "gate.", "per_group/"))
    ]
    card = _environment(autoescape=False).get_template("model_card.md.j2")
    return card.render(
        name=name,
        images=f"{images:,}",
        classes=f"{classes:,}",
        notes=notes,
        parameters=parameters,
        packaged=parameters.get("train.model.weights", "package") == "package",
        metrics=[(metric, beside(found, metric)) for metric in names],
    )


def merged(records: Iterable[Record]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the last value of each metric, as MLflow shows it, and all notes."""
    points: dict[str, float] = {}
    notes: dict[str, str] = {}
    for record in records:
        points |= {point.name: point.value for point in record.points}
        notes |= record.notes
    return points, notes


def shown(name: str, value: float, interval: bool = False) -> str:
    """Return a number as it is printed: four decimals for shares, thousands with commas, a sign for gains."""
    if isnan(value):
        return "–"
    sign = "+" if "gain" in name.split(".") else ""
    if value == int(value) and not interval:
        return f"{value:{sign},.0f}"
    if 0 < abs(value) < 1e-3:
        return f"{value:{sign}.1e}"
    return f"{value:{sign},.1f}" if abs(value) >= 10 else f"{value:{sign}.4f}"


def families(points: Mapping[str, float]) -> dict[str, Family]:
    """Return metrics by name; X.low and X.high are the interval of X."""
    found = {}
    for name, value in points.items():
        if name.endswith((".low", ".high")) and name.rpartition(".")[0] in points:
            continue
        ends = [end for end in (f"{name}.low", f"{name}.high") if end in points]
        bounds = [Number(end, shown(end, points[end], interval=True)) for end in ends]
        interval = (bounds[0], bounds[1]) if len(bounds) == 2 and not isnan(value) else None
        found[name] = Family(Number(name, shown(name, value, interval=bool(ends))), interval)
    return found


def beside(found: Mapping[str, Family], name: str) -> list[Family | None]:
    """Return a metric of the trained net, of the frozen one, and the gain."""
    return [found.get(f"{prefix}{name}") for prefix in BESIDE.values()]


def label(name: str) -> str:
    """Return the field's word for a metric: fine.recall_at_1 is recall@1."""
    last = name.rpartition(".")[2]
    return NAMES.get(last) or last.replace("ndcg", "nDCG").replace("_at_", "@").replace("_", " ")


def _section(anchor: str, title: str, step: str, missing: str, record: Record | None) -> Section:
    if record is None or not (record.points or record.figures or record.notes):
        return Section(anchor, title, missing, [], [])
    tables = _evaluation(record) if step == "evaluate" else _plain(record)
    order = list(CAPTIONS)
    files = sorted(record.figures.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order))
    return Section(anchor, title, "", tables, [_picture(name, file) for name, file in files])


def _plain(record: Record) -> list[Table]:
    """Return a step's curves (first and last epoch), its metrics by group, and its other metrics."""
    curves: dict[str, list[float]] = {}
    for point in record.points:
        if point.step is not None:
            curves.setdefault(point.name, []).append(point.value)
    single = {point.name: point.value for point in record.points if point.step is None}
    grouped, rest = _by_group(families(single))
    tables = []
    if rest:
        tables.append(Table("", ("value",), [("", name, [family]) for name, family in rest.items()]))
    if curves:
        ends = {name: [Family(Number(name, shown(name, values[at]))) for at in (0, -1)] for name, values in curves.items()}
        tables.append(Table("", ("first epoch", "last epoch"), [("", name, cells) for name, cells in ends.items()]))
    return tables + grouped


def _by_group(found: Mapping[str, Family]) -> tuple[list[Table], dict[str, Family]]:
    """Take metrics named per_group/NAME.METRIC out as a table, a line a group."""
    lines: dict[str, dict[str, Family]] = {}
    rest = {}
    for name, family in found.items():
        match = GROUP.fullmatch(name)
        if match:
            lines.setdefault(match["group"], {})[match["metric"]] = family
        else:
            rest[name] = family
    metrics = list(dict.fromkeys(metric for line in lines.values() for metric in line))
    rows: list[Row] = [(group, "", [line.get(metric) for metric in metrics]) for group, line in lines.items()]
    return [Table("By group of classes", tuple(map(label, metrics)), rows, of="group")] if rows else [], rest


def _evaluation(record: Record) -> list[Table]:
    """Return a table a level (fine, coarse, …), the trained net beside the frozen one."""
    grouped, found = _by_group(families({point.name: point.value for point in record.points}))
    beside_of = tuple(prefix for prefix in BESIDE.values() if prefix)
    encode_hierarchy: dict[str, list[str]] = {}
    for name in found:
        own = name.removeprefix(next((prefix for prefix in beside_of if name.startswith(prefix)), ""))
        names = encode_hierarchy.setdefault(own.rpartition(".")[0], [])
        if own not in names:
            names.append(own)
    tables = []
    for level, names in encode_hierarchy.items():
        rows = [("" if label(name) == name else label(name), name, beside(found, name)) for name in names]
        filled = [any(cells[i] for _, _, cells in rows) for i in range(len(BESIDE))]
        columns = tuple(column for column, some in zip(BESIDE, filled, strict=True) if some)
        kept = [(words, name, [cell for cell, some in zip(cells, filled, strict=True) if some]) for words, name, cells in rows]
        tables.append(Table(NAMES.get(level, level), columns, kept))
    return tables + grouped


def _picture(name: str, file: Path) -> Picture:
    """Return a picture as a data URI; WebP, as the images in PNG would make the page ten times as heavy."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    image.thumbnail((WEBP_LIMIT, WEBP_LIMIT))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88)
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(name, CAPTIONS.get(name, ""), uri, image.width, image.height)


def _markdown(text: object) -> str:
    """Return text that Markdown shows as it is, in a table too."""
    return re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", escape(" ".join(str(text).split()), quote=False))


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = _markdown
    return environment

"""The report of a run as one HTML file, made from the records of the steps."""

import base64
import io
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from PIL import Image

from deeprank import plotting
from deeprank.plotting.style import CAPTIONS
from deeprank.report.tables import (
    Table,
    compare_models,
    display_name,
    evaluation_tables,
    format_metrics,
    last_values,
    step_tables,
)
from deeprank.report.templates import create_environment
from deeprank.reporting import Record

MAIN_METRICS = ("fine.recall_at_1", "fine.map_at_r", "ndcg_at_10", "triplet_accuracy")
# Largest side of a WebP image.
MAX_WEBP_PX = 16383
WEBP_QUALITY = 88


@dataclass(frozen=True)
class SectionSpec:
    """A section that every report has.

    Attributes:
        anchor, title: of the section.
        step: its record is shown in the section.
        figures: names of the figures shown first, in this order; the others follow in the order of their registration.

    """

    anchor: str
    title: str
    step: str
    figures: tuple[str, ...] = ()

    @property
    def missing_text(self) -> str:
        """The sentence shown where the run has no record of the step."""
        return f"The step {self.step} reported nothing in this run."


SECTIONS = (
    SectionSpec("data", "Data", "ingest"),
    SectionSpec("leakage", "Leakage between the splits", "leakage"),
    SectionSpec("drift", "Drift", "drift"),
    SectionSpec("triplets", "Triplets", "sample_triplets"),
    SectionSpec("training", "Training", "train"),
    SectionSpec("evaluation", "Evaluation", "evaluate", ("recall_curve", "confusion", "neighbor_gallery", "explained")),
    SectionSpec("gate", "Promotion gate", "register"),
    SectionSpec("clusters", "Clusters", "cluster"),
)


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure as a data URI.

    Attributes:
        name: under which the step reported it.
        caption: of the figure; empty where none is registered.
        uri: data URI of a WebP image.
        width, height: in pixels.

    """

    name: str
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """The tables and figures of one step; `missing` is a sentence where the step reported nothing, else empty."""

    anchor: str
    title: str
    missing: str
    tables: list[Table]
    figures: list[EmbeddedFigure]


def write_report(file: Path, title: str, records: Sequence[tuple[str, Record]]) -> None:
    """Write the report as one HTML file that needs no server, no script and no other file.

    Args:
        file: to write; its folder is created.
        title: of the page, e.g. the names of model and run.
        records: name and record of each step; the report names the steps without a record.

    """
    _register_all_figures()
    record_of = dict(records)
    values, notes = last_values(record for _, record in records)
    metrics = format_metrics(values)
    fixed_steps = {spec.step for spec in SECTIONS}
    other_steps = [step for step, record in records if step not in fixed_steps and _has_content(record)]
    other_specs = [SectionSpec(step, step.replace("_", " ").capitalize(), step) for step in other_steps]
    html = (
        create_environment(autoescape=True)
        .get_template("report.html.j2")
        .render(
            title=title,
            notes=notes,
            main_metrics=[(display_name(name), name, *compare_models(metrics, name)) for name in MAIN_METRICS if name in metrics],
            sections=[_section(spec, record_of.get(spec.step)) for spec in (*SECTIONS, *other_specs)],
            note_rows=[(step, name, value) for step, record in records for name, value in record.notes.items()],
        )
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(html, encoding="utf-8")


def _register_all_figures() -> None:
    """Import every module of `deeprank.plotting`: a module registers the captions of its figures when it is imported."""
    for module in pkgutil.iter_modules(plotting.__path__):
        import_module(f"{plotting.__name__}.{module.name}")


def _has_content(record: Record) -> bool:
    return bool(record.points or record.figures or record.notes)


def _section(spec: SectionSpec, record: Record | None) -> Section:
    if record is None or not _has_content(record):
        return Section(spec.anchor, spec.title, spec.missing_text, [], [])
    tables = evaluation_tables(record) if spec.step == "evaluate" else step_tables(record)
    order = list(dict.fromkeys((*spec.figures, *CAPTIONS)))
    names = sorted(record.figures, key=lambda name: order.index(name) if name in order else len(order))
    return Section(spec.anchor, spec.title, "", tables, [_embed_figure(name, record.figures[name]) for name in names])


def _embed_figure(name: str, file: Path) -> EmbeddedFigure:
    """Return a figure as a data URI of a WebP image: as PNG the page would have ten times the size."""
    with Image.open(file) as png:
        image = png.convert("RGB")
    image.thumbnail((MAX_WEBP_PX, MAX_WEBP_PX))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY)
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return EmbeddedFigure(name, CAPTIONS.get(name, ""), uri, image.width, image.height)

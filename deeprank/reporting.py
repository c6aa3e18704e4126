"""Reporting: long jobs report metrics, figures and texts to a Reporter; the caller decides where they go."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Item = TypeVar("Item")
# Folder of text files within a record.
ATTACHED = "attached"


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """Show a progress bar while iterating, on standard error: standard output is for results."""
    # The description may name files, in which square brackets are no markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, description=description, total=total)


class Reporter(Protocol):
    """Takes what a long job reports."""

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Report a number; with `step` (e.g. the epoch) it is a point of a curve."""

    def figure(self, name: str, figure: "Figure") -> None:
        """Report a figure."""

    def note(self, name: str, value: str) -> None:
        """Report a text, e.g. a version, or a decision and its reason."""

    def attach(self, name: str, text: str) -> None:
        """Report a text file, e.g. a table as CSV or a page as HTML."""


@dataclass(frozen=True)
class MetricPoint:
    """A reported number; `step` is None if it is not a point of a curve."""

    name: str
    value: float
    step: int | None = None


@dataclass
class Record:
    """A reporter that keeps everything in a folder, so that it can be logged again later.

    Attributes:
        folder: where figures and files are.
        points: the reported numbers, in order.
        notes: the reported texts, by name.

    """

    folder: Path
    points: list[MetricPoint] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Keep a number."""
        self.points.append(MetricPoint(name, float(value), step))

    def note(self, name: str, value: str) -> None:
        """Keep a text; it replaces an earlier text of the same name."""
        self.notes[name] = value

    def figure(self, name: str, figure: "Figure") -> None:
        """Write a figure to `<folder>/<name>.png`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png", dpi=110, bbox_inches="tight")

    def attach(self, name: str, text: str) -> None:
        """Write a text file to `<folder>/attached/<name>`."""
        (self.folder / ATTACHED).mkdir(parents=True, exist_ok=True)
        (self.folder / ATTACHED / name).write_text(text)

    def save(self) -> None:
        """Write numbers and texts to `<folder>/record.json`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = {"points": [vars(point) for point in self.points], "notes": self.notes}
        (self.folder / "record.json").write_text(json.dumps(data, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read a saved record; it is empty if there is none."""
        file = folder / "record.json"
        if not file.exists():
            return cls(folder)
        data = json.loads(file.read_text())
        return cls(folder, [MetricPoint(**point) for point in data["points"]], data["notes"])

    @property
    def figures(self) -> dict[str, Path]:
        """The figures' files, by name."""
        return {file.stem: file for file in sorted(self.folder.glob("*.png"))}

    @property
    def attached(self) -> list[Path]:
        """The text files."""
        return sorted((self.folder / ATTACHED).glob("*"))

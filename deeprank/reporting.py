"""How long jobs report: the library writes down metrics, figures and tables; whoever calls it decides where they go."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich import progress
from rich.console import Console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Item = TypeVar("Item")
ATTACHED = "attached"


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """Show a progress bar while iterating; on standard error, so that a command's output stays its own."""
    return progress.track(items, description=description, total=total, console=Console(stderr=True))


class Reporter(Protocol):
    """What a long job may say while it works."""

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Report one number; `step` (an epoch, say) makes it a point of a curve."""

    def figure(self, name: str, figure: "Figure") -> None:
        """Report a picture under a fixed name."""

    def note(self, name: str, value: str) -> None:
        """Report a fact in words (a version, a choice and its reason)."""

    def attach(self, name: str, text: str) -> None:
        """Report a file of text under a fixed name: a table as CSV, a page as HTML."""


@dataclass(frozen=True)
class MetricPoint:
    """One reported number."""

    name: str
    value: float
    step: int | None = None


@dataclass
class Record:
    """A reporter that keeps all it is told in a folder, so that a cached result can tell it again later."""

    folder: Path
    points: list[MetricPoint] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Keep one number."""
        self.points.append(MetricPoint(name, float(value), step))

    def note(self, name: str, value: str) -> None:
        """Keep a fact in words."""
        self.notes[name] = value

    def figure(self, name: str, figure: "Figure") -> None:
        """Draw a picture to `<folder>/<name>.png`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png", dpi=110, bbox_inches="tight")

    def attach(self, name: str, text: str) -> None:
        """Write a file of text to `<folder>/attached/<name>`."""
        (self.folder / ATTACHED).mkdir(parents=True, exist_ok=True)
        (self.folder / ATTACHED / name).write_text(text)

    def save(self) -> None:
        """Write numbers and notes beside the pictures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = {"points": [vars(point) for point in self.points], "notes": self.notes}
        (self.folder / "record.json").write_text(json.dumps(data, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read a saved record; an absent one is empty."""
        file = folder / "record.json"
        if not file.exists():
            return cls(folder)
        data = json.loads(file.read_text())
        return cls(folder, [MetricPoint(**point) for point in data["points"]], data["notes"])

    @property
    def figures(self) -> dict[str, Path]:
        """The pictures by name."""
        return {file.stem: file for file in sorted(self.folder.glob("*.png"))}

    @property
    def attached(self) -> list[Path]:
        """The files of text."""
        return sorted((self.folder / ATTACHED).glob("*"))

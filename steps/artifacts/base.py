"""The artifacts that steps pass to each other: folders, each with the record of what its step reported."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deeprank.checksums import hash_file
from deeprank.home import home
from deeprank.reporting import Record

RECORD, SKIPPED = "record", "skipped"
_temporary_folders: list[tempfile.TemporaryDirectory[str]] = []


def new_folder() -> Path:
    """Return an empty folder that is deleted when the process ends; by then the materializer has copied a step's output."""
    parent = home() / "work"
    parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=parent)
    _temporary_folders.append(folder)
    return Path(folder.name)


@dataclass(frozen=True)
class Artifact:
    """A folder of files, with the step's record in `record/`."""

    folder: Path

    @property
    def record(self) -> Record:
        """What the step reported; ZenML's cache keeps it, so that it can be logged again for a cached step."""
        return Record.load(self.folder / RECORD)

    def skip(self) -> None:
        """Mark this as the output of a skipped step; a step with such an input is skipped too."""
        (self.folder / SKIPPED).write_text("an earlier step had nothing to do\n")

    @property
    def skipped(self) -> bool:
        """Whether the step was skipped."""
        return (self.folder / SKIPPED).exists()

    def content_hash(self) -> str:
        """Return a hash of the files without the record; it decides whether the next step is a cache hit."""
        files = sorted(file for file in self.folder.rglob("*") if file.is_file() and RECORD not in file.relative_to(self.folder).parts)
        lines = [f"{file.relative_to(self.folder).as_posix()} {hash_file(file)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

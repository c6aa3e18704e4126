"""What passes between steps: folders, each with the record of what its step reported, so that a cached step can say it again."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deeprank.checksums import hash_file
from deeprank.home import home
from deeprank.reporting import Record

RECORD, SKIPPED = "record", "skipped"
_WORK: list[tempfile.TemporaryDirectory[str]] = []


def new_folder() -> Path:
    """Return an empty folder for a step's output; it goes away with the process, after the materializer has copied it."""
    base = home() / "work"
    base.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=base)
    _WORK.append(folder)
    return Path(folder.name)


@dataclass(frozen=True)
class Artifact:
    """A folder of files, with the step's record in `record/`."""

    folder: Path

    @property
    def record(self) -> Record:
        """What the step reported."""
        return Record.load(self.folder / RECORD)

    @classmethod
    def skip(cls, folder: Path) -> Self:
        """Return the output of a step that had nothing to do; steps that get it skip themselves too."""
        (folder / SKIPPED).write_text("a step before this one found nothing to do\n")
        return cls(folder)

    @property
    def skipped(self) -> bool:
        """Whether the step had nothing to do."""
        return (self.folder / SKIPPED).exists()

    def content_hash(self) -> str:
        """Return a hash of the files, their record aside: what decides whether the next step is a cache hit."""
        files = sorted(file for file in self.folder.rglob("*") if file.is_file() and RECORD not in file.relative_to(self.folder).parts)
        lines = [f"{file.relative_to(self.folder).as_posix()} {hash_file(file)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

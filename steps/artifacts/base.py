"""The artifacts that steps pass to each other: folders, each with the record of what its step reported."""

import hashlib
import tempfile
from pathlib import Path

from zenml.io import fileio
from zenml.utils import io_utils

from deeprank.checksums import hash_file
from deeprank.errors import DataError
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


class Artifact:
    """A folder of files, with the step's record in `record/`; of a stored one, each part is downloaded when it is first used."""

    def __init__(self, folder: Path, stored_at: str = "") -> None:
        """Take a local folder, and the URI of the stored files that belong into it; empty if they are there."""
        self._folder, self._stored_at = folder, stored_at
        self._downloaded: set[str] = set()

    @property
    def folder(self) -> Path:
        """The local folder with all files."""
        self._download("")
        return self._folder

    @property
    def record(self) -> Record:
        """What the step reported; ZenML's cache keeps it, so that it can be logged again for a cached step."""
        self._download(RECORD)
        return Record.load(self._folder / RECORD)

    def skip(self) -> None:
        """Mark this as the output of a skipped step; a step with such an input is skipped too."""
        (self._folder / SKIPPED).write_text("an earlier step had nothing to do\n")

    @property
    def skipped(self) -> bool:
        """Whether the step was skipped."""
        return bool(fileio.exists(f"{self._stored_at}/{SKIPPED}")) if self._stored_at else (self._folder / SKIPPED).exists()

    def content_hash(self) -> str:
        """Return a hash of the files without the record; it decides whether the next step is a cache hit."""
        files = sorted(file for file in self.folder.rglob("*") if file.is_file() and RECORD not in file.relative_to(self.folder).parts)
        lines = [f"{file.relative_to(self.folder).as_posix()} {hash_file(file)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _download(self, part: str) -> None:
        """Download a subfolder, or all files (""), from the artifact store."""
        if not self._stored_at or self._downloaded & {part, ""}:
            return
        source = f"{self._stored_at}/{part}".rstrip("/")
        if fileio.isdir(source):
            io_utils.copy_dir(source, str(self._folder / part), overwrite=True)
        elif not part:
            raise DataError(f"{source}: this artifact is no longer in the artifact store; run the pipeline again with enable_cache: false")
        self._downloaded.add(part)

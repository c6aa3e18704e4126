"""What passes between steps: folders, each with the record of what its step reported, so that a cached step can say it again."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.evaluate import Evaluation
from deeprank.home import home
from deeprank.model.bundle import Bundle, hash_file
from deeprank.reporting import Record
from deeprank.search.index import Index
from deeprank.triplets.sampling import Triplets

RECORD = "record"
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

    def content_hash(self) -> str:
        """Return a hash of the files, their record aside: what decides whether the next step is a cache hit."""
        files = sorted(file for file in self.folder.rglob("*") if file.is_file() and RECORD not in file.relative_to(self.folder).parts)
        lines = [f"{file.relative_to(self.folder).as_posix()} {hash_file(file)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class CatalogueArtifact(Artifact):
    """A pointer to one version of a catalogue."""

    @classmethod
    def write(cls, folder: Path, catalogue: Catalogue) -> "CatalogueArtifact":
        """Write uri, version and fingerprint."""
        facts = {"uri": catalogue.uri, "version": catalogue.version, "fingerprint": catalogue.fingerprint}
        (folder / "catalogue.json").write_text(json.dumps(facts, indent=1))
        return cls(folder)

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = json.loads((self.folder / "catalogue.json").read_text())
        return facts

    def open(self) -> Catalogue:
        """Return the catalogue."""
        facts = self._facts()
        return Catalogue(str(facts["uri"]), int(str(facts["version"])))

    def content_hash(self) -> str:
        """Return the fingerprint: a version that changed nothing usable is no news downstream."""
        return str(self._facts()["fingerprint"])


class TripletsArtifact(Artifact):
    """Triplets as Parquet."""

    @classmethod
    def write(cls, folder: Path, triplets: Triplets) -> "TripletsArtifact":
        """Write the triplets and their catalogue's fingerprint."""
        triplets.frame.to_parquet(folder / "triplets.parquet", index=False)
        (folder / "catalogue.txt").write_text(triplets.fingerprint)
        return cls(folder)

    def open(self) -> Triplets:
        """Return the triplets."""
        return Triplets(pd.read_parquet(self.folder / "triplets.parquet"), (self.folder / "catalogue.txt").read_text())


class BundleArtifact(Artifact):
    """A model bundle."""

    def open(self) -> Bundle:
        """Return the bundle."""
        return Bundle(self.folder)


class EvaluationArtifact(Artifact):
    """An evaluation's metrics and tables."""

    def open(self) -> Evaluation:
        """Return the evaluation."""
        return Evaluation.load(self.folder)


class IndexArtifact(Artifact):
    """Clusters and index."""

    def open(self) -> Index:
        """Return the index."""
        return Index(self.folder)


class ReleaseArtifact(Artifact):
    """Which model version was registered, and why it is the champion or not: release.json."""

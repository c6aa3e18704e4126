"""A pointer to one version of a catalogue."""

import json
from pathlib import Path

from deeprank.data.catalogue import Catalogue
from steps.artifacts.base import Artifact


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

"""A reference to one version of a catalogue."""

import json
from typing import Any

from deeprank.data.catalogue import Catalogue
from steps.artifacts.base import Artifact

CATALOGUE_JSON = "catalogue.json"


class CatalogueArtifact(Artifact):
    """A reference to one version of a catalogue."""

    @property
    def empty(self) -> bool:
        """Whether there is no catalogue in it, because the config has no folder for it."""
        return not (self.folder / CATALOGUE_JSON).exists()

    def write(self, catalogue: Catalogue) -> None:
        """Write uri, version, fingerprint and excluded images."""
        reference: dict[str, object] = {
            "uri": catalogue.uri,
            "version": catalogue.version,
            "fingerprint": catalogue.fingerprint,
            "excluded": sorted(catalogue.excluded),
        }
        (self.folder / CATALOGUE_JSON).write_text(json.dumps(reference, indent=1))

    def _reference(self) -> dict[str, Any]:
        reference: dict[str, Any] = json.loads((self.folder / CATALOGUE_JSON).read_text())
        return reference

    def open(self) -> Catalogue:
        """Return the catalogue."""
        reference = self._reference()
        return Catalogue(reference["uri"], reference["version"], frozenset(reference["excluded"]))

    def content_hash(self) -> str:
        """Return the fingerprint: a new version with the same usable images is a cache hit for the next step."""
        return super().content_hash() if self.empty else str(self._reference()["fingerprint"])

"""A model bundle."""

from deeprank.model.bundle import Bundle
from steps.artifacts.base import Artifact


class BundleArtifact(Artifact):
    """A model bundle."""

    def open(self) -> Bundle:
        """Return the bundle."""
        return Bundle(self.folder)

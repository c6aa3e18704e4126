"""A model bundle."""

from deeprank.models.bundle import Bundle
from steps.artifacts.base import Artifact


class BundleArtifact(Artifact):
    """A model bundle."""

    @property
    def empty(self) -> bool:
        """Whether there is no bundle in it, because there is no champion yet."""
        return not (self.folder / "config.json").exists()

    def open(self) -> Bundle:
        """Return the bundle."""
        return Bundle(self.folder)

"""The index."""

from deeprank.search.index import Index
from steps.artifacts.base import Artifact


class IndexArtifact(Artifact):
    """The index."""

    def open(self) -> Index:
        """Return the index."""
        return Index(self.folder)

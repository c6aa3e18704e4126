"""Clusters and index."""

from deeprank.search.index import Index
from steps.artifacts.base import Artifact


class IndexArtifact(Artifact):
    """Clusters and index."""

    def open(self) -> Index:
        """Return the index."""
        return Index(self.folder)

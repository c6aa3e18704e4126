"""Clusters of a catalogue."""

from deeprank.search.clusters import Clusters
from steps.artifacts.base import Artifact


class ClustersArtifact(Artifact):
    """Clusters of a catalogue."""

    def open(self) -> Clusters:
        """Return the clusters."""
        return Clusters.load(self.folder)

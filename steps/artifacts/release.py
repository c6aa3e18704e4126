"""Which model version was registered, and why it is the champion or not: release.json."""

from steps.artifacts.base import Artifact


class ReleaseArtifact(Artifact):
    """Which model version was registered, and why it is the champion or not: release.json."""

"""The registered model version, and the reason why it is the champion or not: release.json."""

from steps.artifacts.base import Artifact


class ReleaseArtifact(Artifact):
    """The registered model version, and the reason why it is the champion or not: release.json."""

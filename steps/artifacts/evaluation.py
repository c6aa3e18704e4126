"""An evaluation's metrics and tables."""

from deeprank.evaluation.evaluation import Evaluation
from steps.artifacts.base import Artifact


class EvaluationArtifact(Artifact):
    """An evaluation's metrics and tables."""

    def open(self) -> Evaluation:
        """Return the evaluation."""
        return Evaluation.load(self.folder)

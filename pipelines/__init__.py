from pipelines.retraining import retraining
from pipelines.training import training

__all__ = ["retraining", "training"]

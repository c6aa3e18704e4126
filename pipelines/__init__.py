from pipelines.training import training

__all__ = ["training"]

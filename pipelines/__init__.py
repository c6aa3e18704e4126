import sys

from deeprank.errors import ConfigError
from deeprank.home import require_in_place

# Before ZenML is imported, which may write into the state folder.
try:
    require_in_place()
except ConfigError as error:
    # `zenml` and `python -m` would print the traceback of any other exception.
    sys.exit(f"Error: {error}")

from pipelines.refreshing import refreshing
from pipelines.retraining import retraining
from pipelines.training import training

__all__ = ["refreshing", "retraining", "training"]

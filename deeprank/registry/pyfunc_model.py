"""The release as an MLflow pyfunc model, from code: no pickle is written or read."""

import base64
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher

NEIGHBORS = 10


class ReleaseModel(PythonModel):
    """Base64 images in, their neighbors out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the release beside the model."""
        self.searcher = Searcher(Release(Path(context.artifacts["bundle"]).parent))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[list[dict[Hashable, Any]]]:
        """Return for each row of column `image` (base64) its neighbors as records of path, label, distance and cluster."""
        images = [base64.b64decode(image) for image in model_input["image"]]
        columns = ["path", "label", "distance", "cluster"]
        return [found[columns].to_dict("records") for found in self.searcher.search(images, NEIGHBORS)]


mlflow.models.set_model(ReleaseModel())

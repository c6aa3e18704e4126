"""The release as an MLflow pyfunc model, logged as source code, so that no pickle is written or read."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from deeprank.data.image_inputs import convert_each, decode_base64
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher

NUM_NEIGHBORS = 10


class ReleaseModel(PythonModel):
    """A model that takes images in base64 and returns their nearest neighbors."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the release that the model's artifacts belong to."""
        self.searcher = Searcher(Release(Path(context.artifacts["bundle"]).parent))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[list[dict[Hashable, Any]]]:
        """Return the neighbors of each image (column `image`, base64) as records of path, label, distance and cluster."""
        images = list(convert_each(model_input["image"].tolist(), decode_base64))
        columns = ["path", "label", "distance", "cluster"]
        return [neighbors[columns].to_dict("records") for neighbors in self.searcher.search(images, NUM_NEIGHBORS)]


mlflow.models.set_model(ReleaseModel())

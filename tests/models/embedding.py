"""Embedding of a few stored images."""

from collections.abc import Sequence

import numpy as np
import torch

from deeprank.models.embedding_model import Embedder
from deeprank.models.inference import forward
from deeprank.models.preprocessing import Preprocessing


def embed_jpegs(model: Embedder, preprocessing: Preprocessing, jpegs: Sequence[bytes]) -> np.ndarray:
    """Return the embeddings of stored images, float32 (n, d) of unit length."""
    return forward(model, torch.stack([preprocessing(jpeg) for jpeg in jpegs]))

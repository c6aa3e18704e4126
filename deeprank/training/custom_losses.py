"""Losses that pytorch-metric-learning does not have, and corrections of those that it has."""

from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses as library
from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_triplets
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from deeprank.errors import ConfigError
from deeprank.triplets.relevance import RelevanceWeights, relevance_by_depth


class GradedHinge(nn.Module):
    """Hinge on squared distances with a margin proportional to the difference of two relevances.

    The loss is the mean over active triplets (q, a, b), r(q, a) > r(q, b), of
    max(0, margin * (r(q, a) - r(q, b)) + D(q, a) - D(q, b)); r is the relevance, D the squared Euclidean distance. An image of the
    same coarse class is pulled nearer than an image of another one, but not as near as an image of the same fine class.

    Source: Wang et al. 2014, equation 3, with a graded margin.
    """

    class_codes: Tensor
    relevance_by_depth: Tensor

    def __init__(self, class_codes: Tensor, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin
        table = relevance_by_depth(class_codes.shape[1], RelevanceWeights()).astype(np.float32)
        self.register_buffer("class_codes", class_codes, persistent=False)
        self.register_buffer("relevance_by_depth", torch.from_numpy(table), persistent=False)

    def forward(self, embeddings: Tensor, labels: Tensor, triplets: tuple[Tensor, ...] | None = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: (n, d) of unit length.
            labels: (n,) class numbers.
            triplets: positions (query, positive, negative) in the batch; None: all (q, a, b) in it.

        """
        codes = self.class_codes[labels]
        # Of the classes of the batch alone: a matrix of 50,000 classes takes 10 GB.
        relevance = self.relevance_by_depth[(codes[:, None] == codes).sum(dim=2)].to(embeddings.dtype)
        # margin * (r(q, a) - r(q, b)) + D(q, a) - D(q, b) is the difference of two such scores.
        scores = self.margin * relevance + 2 - 2 * embeddings @ embeddings.T
        if triplets is None:
            different = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
            ranked = (relevance[:, :, None] > relevance[:, None, :]) & different[:, :, None] & different[:, None, :]
            hinge = (scores[:, :, None] - scores[:, None, :]).relu() * ranked
        else:
            query, positive, negative = convert_to_triplets(triplets, labels)
            hinge = (scores[query, positive] - scores[query, negative]).relu()
        return hinge.sum() / (hinge > 0).sum().clamp(min=1)


class CosineSoftmax(nn.Module):
    """CosFace with label smoothing: cross entropy on the cosines to one proxy per class, less a margin for the proxy of the label.

    Source: CosFace, Wang et al. 2018, equation 4; label smoothing, Szegedy et al. 2016.

    Args:
        num_classes: number of proxies.
        embedding_size: size of a proxy.
        scale: factor of the cosines.
        margin: subtracted from the cosine to the proxy of the label.
        smoothing: label smoothing, 0 to 1.

    """

    def __init__(self, num_classes: int, embedding_size: int, scale: float = 16, margin: float = 0.1, smoothing: float = 0.1) -> None:
        super().__init__()
        self.scale, self.margin, self.smoothing = scale, margin, smoothing
        self.proxies = nn.Parameter(normalize(torch.randn(num_classes, embedding_size), dim=1))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of embeddings (n, d) of unit length with class numbers (n,)."""
        cosine = embeddings @ normalize(self.proxies, dim=1).T
        is_label = one_hot(labels, len(self.proxies)).to(cosine.dtype)
        return cross_entropy(self.scale * (cosine - self.margin * is_label), labels, label_smoothing=self.smoothing)


class MemoryLoss(library.CrossBatchMemory):  # type: ignore[misc]
    """Loss of a batch against the embeddings of earlier batches too; a checkpoint restores the whole memory.

    Source: XBM, Wang et al. 2020.
    """

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of embeddings (n, d) of unit length with class numbers (n,), and store them.

        Raises:
            ConfigError: the batch is larger than the memory.

        """
        if len(embeddings) > self.memory_size:
            raise ConfigError(f"train.losses: a memory of {self.memory_size} does not hold a batch of {len(embeddings)}; make it larger")
        loss: Tensor = super().forward(embeddings, labels)
        return loss

    # The state of the library's class has the embeddings, but not how many there are and where the next batch is stored.
    def get_extra_state(self) -> dict[str, int]:
        """Return the position in the memory, as part of the state."""
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore the position in the memory."""
        self.queue_idx, self.has_been_filled = state["queue_idx"], state["has_been_filled"]


class DynamicSoftMarginLoss(library.DynamicSoftMarginLoss):  # type: ignore[misc]
    """The library's loss with a detached histogram in its state.

    The library's class keeps the graph of the last batch in its histogram, so that the second batch fails, and does not save it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("hist_", self.__dict__.pop("hist_"))

    def update_histogram(self, data: Tensor) -> None:
        """Add detached data to the histogram."""
        super().update_histogram(data.detach())

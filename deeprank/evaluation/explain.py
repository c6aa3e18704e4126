"""Similarity maps: how much each region of two images contributes to their similarity."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, SearchModel
from deeprank.models.preprocessing import Preprocessing
from deeprank.plotting.explanation import ExplainedPair
from deeprank.plotting.style import first_per_class

SimilarityMap = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """How much each region of two images contributes to their similarity.

    Attributes:
        similarity: of the first image, as a query, to the second, -1 to 1.
        distance: 0 to 2: similarity = 1 - distance² / 2.
        first, second: (h, w) contribution of each region of the center square of each image; each map sums to the similarity.

    """

    similarity: float
    distance: float
    first: SimilarityMap
    second: SimilarityMap


def similarity_maps(model: Embedder, preprocessing: Preprocessing, first: bytes, second: bytes) -> Explanation:
    """Divide the similarity of two stored images among the regions of each image.

    A region is a cell of the ConvNet's last feature map before pooling. Its contribution is gradient times activation, with all
    norms held fixed: the embedding is then a linear function of the cells, and the contribution of a cell is the inner product of
    its part of the embedding with the other image's embedding. The part of the similarity that comes from no cell (a
    bias) is spread evenly over the cells. The result is exact for average pooling followed by linear or
    piecewise linear layers such as ReLU. For other layers after pooling it is a first-order approximation; the remainder is
    spread evenly too. The low-resolution branches of the multiscale model add the contributions of their own cells.

    Args:
        model, preprocessing: that embed the images; other threads may use the model at the same time.
        first, second: stored images, JPEG bytes as the catalogue keeps them; the first one is the query.

    Raises:
        ModelError: the model has no feature map (a transformer).

    Source: Stylianou, Souvenir, Pless 2019, Visualizing Deep Similarity Networks.

    """
    images = torch.stack([preprocessing(first), preprocessing(second)]).to(next(model.parameters()).device)
    embeddings, features = _embed_with_features(model, images)
    scale = torch.from_numpy(model.query_scale(embeddings.detach()[:1].cpu().numpy())).to(embeddings.device)
    similarity_sum = (embeddings * scale * embeddings.detach().flip(0)).sum()
    gradients = torch.autograd.grad(similarity_sum, features)
    branch_maps = [(gradient * cells).sum(1).detach() for gradient, cells in zip(gradients, features, strict=True)]
    maps = torch.stack([_resize_preserving_sum(branch_map, branch_maps[0].shape[1]) for branch_map in branch_maps]).sum(0).cpu().numpy()
    first_embedding, second_embedding = embeddings.detach().cpu().numpy()[:, None]
    distance = float(model.query_distances(first_embedding, second_embedding)[0])
    similarity = 1 - distance**2 / 2
    maps += (similarity - maps.sum(axis=(1, 2), keepdims=True)) / maps[0].size
    return Explanation(similarity, distance, *maps)


def explain_first_neighbors(
    catalogue: Catalogue, bundle: Bundle, queries: pd.DataFrame, embeddings: npt.NDArray[np.float32], count: int = 3
) -> tuple[list[ExplainedPair], list[ExplainedPair]]:
    """Return similarity maps of the queries with the shortest distance to their first neighbor, correct and wrong ones.

    Args:
        catalogue: that holds the images.
        bundle: the model that made the embeddings.
        queries: columns row, label, fine.recall_at_1, and nearest, the row of the first neighbor.
        embeddings: (len(frame), d) of unit length.
        count: number of queries of each kind at most, spread over the classes.

    Returns:
        The pairs with a correct and those with a wrong first neighbor, each with the shortest distance first.

    Raises:
        ModelError: the model has no feature map (a transformer).

    """
    model, preprocessing = bundle.load()
    distances = model.query_distances(embeddings[queries["row"]], embeddings[queries["nearest"]])
    by_distance = queries.iloc[np.argsort(distances, kind="stable")]

    def explain(hit: float) -> list[ExplainedPair]:
        pairs = []
        selected = first_per_class(by_distance[by_distance["fine.recall_at_1"] == hit], count)
        for query, neighbor in selected[["row", "nearest"]].to_numpy():
            explanation = similarity_maps(model, preprocessing, *catalogue.read_jpegs([query, neighbor]))
            pairs.append(ExplainedPair(int(query), int(neighbor), explanation.distance, explanation.first, explanation.second))
        return pairs

    return explain(1.0), explain(0.0)


class _FixedNorms(TorchFunctionMode):
    """While active, normalizing a tensor by its norm or standard deviation has no gradient through the divisor."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        replacements: dict[Callable[..., Any], Callable[..., Any]] = {F.normalize: _normalize, F.layer_norm: _layer_norm}
        return replacements.get(func, func)(*args, **(kwargs or {}))


def _normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, **_: object) -> Tensor:
    return input / input.detach().norm(p, dim, keepdim=True).clamp_min(eps)


def _layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    output = (input - input.mean(dims, keepdim=True)) * (input.detach().var(dims, unbiased=False, keepdim=True) + eps).rsqrt()
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


def _embed_with_features(model: Embedder, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return embeddings (n, d) of images (n, 3, s, s), and the last feature map (n, c, h, w) before pooling of each branch."""
    # A copy that shares the weights: hooks on the original modules would also record the images of other threads.
    model = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}).eval()
    branches = _branches(model)
    last_maps: list[Tensor | None] = [None] * len(branches)

    def record_into(branch: int) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            if output.dim() == 4 and output.shape[2] == output.shape[3]:
                last_maps[branch] = output if output.shape[2] > 1 else last_maps[branch]
            elif output.dim() > 2:
                # The tokens of a transformer belong to no region.
                last_maps[branch] = None

        return hook

    with ExitStack() as hooks, _FixedNorms():
        for number, branch in enumerate(branches):
            for module in branch.modules():
                hooks.enter_context(module.register_forward_hook(record_into(number)))
        # Input gradients make autograd build the graph through frozen stages.
        embeddings = model(images.float().requires_grad_())
    features = [feature_map for feature_map in last_maps if feature_map is not None]
    if len(features) < len(branches):
        raise ModelError("this model's backbone outputs tokens, not a feature map: only ConvNets can be explained")
    return embeddings, features


def _branches(model: Embedder) -> list[nn.Module]:
    """Return the modules of a model that end in a feature map, the ConvNet's trainable stages first."""
    finetuned: Any = model.finetuned if isinstance(model, SearchModel) else model
    low_resolution = finetuned.low_resolution
    return [
        finetuned.trainable,
        *([model.pretrained] if isinstance(model, SearchModel) else []),
        *([low_resolution.fine, low_resolution.coarse] if low_resolution is not None else []),
    ]


def _resize_preserving_sum(maps: Tensor, side: int) -> Tensor:
    """Return maps (n, h, h) resized to (n, side, side); the sum of each map stays the same."""
    if maps.shape[1] == side:
        return maps
    weights = F.interpolate(torch.eye(maps.shape[1], device=maps.device)[None], size=side, mode="linear")[0].T
    weights = weights / weights.sum(0)
    return weights @ maps @ weights.T

"""Why two images are alike: how much each region of either adds to their similarity, drawn over the images."""

import copy
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, SearchModel
from deeprank.models.preprocessing import Preprocessing
from deeprank.plotting.style import INK, NEUTRAL, RIGHT, WRONG, first_per_class, short_label

Map = npt.NDArray[np.float32]
# Of a drawn image, in pixels.
SIDE = 384


@dataclass(frozen=True)
class Explanation:
    """How much each region of two images adds to their similarity.

    Attributes:
        similarity: cosine of the two embeddings, -1 to 1.
        distance: Euclidean, of the two embeddings, 0 to 2: similarity = 1 - distance² / 2.
        first, second: (h, w), a cell a region of the center square of either image; the sum of each is the similarity.

    """

    similarity: float
    distance: float
    first: Map
    second: Map


def similarity_maps(model: Embedder, preprocessing: Preprocessing, first: bytes, second: bytes) -> Explanation:
    """Divide the similarity of two stored images among the regions of either.

    Each cell of the ConvNet's last feature map before pooling gets gradient times activation, with all norms held fixed: the
    embedding is then a linear function of the cells, and the cell's share is its own embedding's inner product with the other
    image's. What no cell brings along (a bias, the center of general features) is spread evenly. That is exact for
    average pooling and layers that are linear, or linear piece by piece as ReLU is; of other layers after pooling it is a
    first-order approximation, whose remainder is spread evenly too. The paper's low-resolution branches add their own cells.

    Args:
        net, preprocessing: what embeds; the net may be in use by other threads.
        first, second: stored images, as `embed_jpegs` takes them.

    Raises:
        ModelError: the net ends in no feature map (a transformer).

    Source: Stylianou, Souvenir, Pless 2019, Visualizing Deep Similarity Networks.

    """
    images = torch.stack([preprocessing(first), preprocessing(second)]).to(next(model.parameters()).device)
    embeddings, features = _with_features(model, images)
    score = (embeddings * embeddings.detach().flip(0)).sum()
    parts = [(gradient * cells).sum(1).detach() for gradient, cells in zip(torch.autograd.grad(score, features), features, strict=True)]
    maps = torch.stack([_regridded(part, parts[0].shape[1]) for part in parts]).sum(0).cpu().numpy()
    one, other = embeddings.detach().cpu().numpy().astype(np.float64)
    similarity = float(one @ other)
    maps += (similarity - maps.sum(axis=(1, 2), keepdims=True)) / maps[0].size
    return Explanation(similarity, float(np.linalg.norm(one - other)), *maps)


class _FixedNorms(TorchFunctionMode):
    """While it is active, what is divided by its own norm or deviation has no gradient through the divisor."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        fixed: dict[Callable[..., Any], Callable[..., Any]] = {F.normalize: _normalize, F.layer_norm: _layer_norm}
        return fixed.get(func, func)(*args, **(kwargs or {}))


def _normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, **_: object) -> Tensor:
    return input / input.detach().norm(p, dim, keepdim=True).clamp_min(eps)


def _layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    found = (input - input.mean(dims, keepdim=True)) * (input.detach().var(dims, unbiased=False, keepdim=True) + eps).rsqrt()
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


def _with_features(model: Embedder, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return embeddings (n, d) of images (n, 3, s, s), and of each branch the last feature map (n, c, h, w) before pooling."""
    # The weights are shared, the modules are not: hooks on the net's own would see what other threads embed.
    model = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}).eval()
    branches = _branches(model)
    last: list[Tensor | None] = [None] * len(branches)

    def watch(place: int) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            if output.dim() == 4 and output.shape[2] == output.shape[3]:
                last[place] = output if output.shape[2] > 1 else last[place]
            elif output.dim() > 2:
                # A transformer's tokens: what they hold is of no one place.
                last[place] = None

        return hook

    with ExitStack() as hooks, _FixedNorms():
        for place, branch in enumerate(branches):
            for module in branch.modules():
                hooks.enter_context(module.register_forward_hook(watch(place)))
        # Pixels that want a gradient make sure of a graph through stages that keep their weights.
        embeddings = model(images.float().requires_grad_())
    features = [cells for cells in last if cells is not None]
    if len(features) < len(branches):
        raise ModelError("this model's backbone ends in tokens, not in a feature map of places: only ConvNets can be explained")
    return embeddings, features


def _branches(model: Embedder) -> list[nn.Module]:
    """Return the parts of a net that end in a feature map, the ConvNet's own first."""
    tuned: Any = model.tuned if isinstance(model, SearchModel) else model
    low = tuned.low_resolution
    return [
        tuned.upper,
        *([model.original] if isinstance(model, SearchModel) else []),
        *([low.fine, low.coarse] if low is not None else []),
    ]


def _regridded(cells: Tensor, side: int) -> Tensor:
    """Return maps (n, h, h) as (n, side, side) of the same sums."""
    if cells.shape[1] == side:
        return cells
    share = F.interpolate(torch.eye(cells.shape[1], device=cells.device)[None], size=side, mode="linear")[0].T
    share = share / share.sum(0)
    return share @ cells @ share.T


def overlay(jpeg: bytes, contributions: Map) -> Image.Image:
    """Draw a map over the center square of its image: grey where a region adds nothing, glowing where it adds.

    The scale is the same for all pairs, so that a pair that is not alike stays grey; so do regions that make it less alike.

    Args:
        jpeg: the stored image.
        contributions: (h, w) as of `Explanation`.

    Returns:
        RGB, SIDE x SIDE.

    """
    # 1 stands for a region of which a whole image would be as like the other as can be; few beyond it tell more.
    strength = 1 - np.exp(-np.clip(contributions * contributions.size, 0, None))
    heat = np.asarray(Image.fromarray(strength.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 1)
    grey = np.asarray(_center(jpeg).convert("L"), dtype=np.float32)[..., None] / 255
    # The color is laid on as light is, so that lettering stays legible; the map's darkest colors would look like shadows.
    glowing = colormaps["inferno"](0.3 + 0.65 * heat)[..., :3] * (0.4 + 0.8 * grey)
    drawn = 0.6 * grey * (1 - heat[..., None]) + glowing * heat[..., None]
    return Image.fromarray(np.rint(255 * drawn.clip(0, 1)).astype(np.uint8))


def overlay_png(jpeg: bytes, contributions: Map) -> bytes:
    """Return `overlay` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    overlay(jpeg, contributions).save(buffer, "PNG")
    return buffer.getvalue()


def explanation_figure(explanation: Explanation, first: bytes, second: bytes, names: tuple[str, str] = ("", "")) -> Figure:
    """Draw two stored images side by side, and below them what makes their similarity.

    Args:
        explanation: of the two.
        first, second: stored images.
        names: said above them, their last 40 characters.

    """
    figure = Figure(figsize=(7, 7.7), layout="constrained")
    figure.suptitle(f"Distance {explanation.distance:.2f}, on a scale from 0 (the same) to 2", fontsize=13, color=INK)
    axes: npt.NDArray[Any] = figure.subplots(2, 2)
    maps = (explanation.first, explanation.second)
    for column, jpeg, contributions, name in zip(axes.T, (first, second), maps, names, strict=True):
        # Between dollars Matplotlib would set a formula; what tells files apart is mostly their names' end.
        _show(column[0], _center(jpeg), name[-40:].replace("$", r"\$"))
        _show(column[1], overlay(jpeg, contributions), "")
    figure.supxlabel("The brighter a region glows, the more it adds to the likeness; grey regions add nothing.", fontsize=10, color=INK)
    return figure


def explained(catalogue: Catalogue, bundle: Bundle, queries: pd.DataFrame, embeddings: npt.NDArray[np.float32], count: int = 3) -> Figure:
    """Draw the surest right and the surest wrong answers, those at the shortest distance, with what made them.

    Args:
        catalogue: where the images are.
        bundle: what embedded them.
        queries: columns row, label, fine.recall_at_1, and nearest, the row of the first neighbor.
        embeddings: (len(frame), d) of unit length, by the bundle.
        count: of answers of each kind, of as many classes as there are.

    """
    model, preprocessing = bundle.load()
    distances = np.linalg.norm(embeddings[queries["row"]] - embeddings[queries["nearest"]], axis=1)
    surest = queries.iloc[np.argsort(distances, kind="stable")]
    kinds = {"right": surest[surest["fine.recall_at_1"] == 1], "wrong": surest[surest["fine.recall_at_1"] == 0]}
    chosen = {kind: first_per_class(table, count) for kind, table in kinds.items()}
    lines = max(1, *map(len, chosen.values()))
    figure = Figure(figsize=(11.4, lines * 1.6 + 0.6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, wspace=0.04)
    for half, (kind, table) in zip(halves, chosen.items(), strict=True):
        half.suptitle(f"The surest of {len(kinds[kind]):,} {kind} answers", fontsize=11, color=INK)
        axes: npt.NDArray[Any] = half.subplots(lines, 4, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        if not len(table):
            half.text(0.5, 0.5, "none", ha="center", va="center", fontsize=10, color=NEUTRAL)
        for line, row, nearest in zip(axes, table["row"], table["nearest"], strict=False):
            names = [short_label(catalogue.frame["label"][one]) for one in (row, nearest)]
            first, second = catalogue.images([row, nearest])
            found = similarity_maps(model, preprocessing, first, second)
            _show(line[0], _center(first), f"query\n{names[0]}", NEUTRAL)
            _show(line[1], overlay(first, found.first), "", NEUTRAL)
            color = RIGHT if kind == "right" else WRONG
            _show(line[2], overlay(second, found.second), "", color)
            _show(line[3], _center(second), f"{found.distance:.2f}\n{names[1]}", color)
    return figure


def _center(jpeg: bytes) -> Image.Image:
    """Return the part of a stored image that a net sees, SIDE x SIDE."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        side = min(opened.size)
        left, top = (opened.width - side) // 2, (opened.height - side) // 2
        return opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _show(axes: Axes, picture: Image.Image, caption: str, color: str | None = None) -> None:
    axes.set_axis_on()
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(color is not None)
        spine.set_color(color or INK)
        spine.set_linewidth(2.5)
    axes.set_title(caption, fontsize=7 if color else 10, color=INK, pad=3)

"""Similarity maps divide the similarity of two images exactly among the regions of each image."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from deeprank.data.catalogue import Catalogue
from deeprank.data.images import to_stored_image
from deeprank.data.synthetic import draw_image
from deeprank.errors import ModelError
from deeprank.evaluation.explain import _resize_preserving_sum, explain_first_neighbors, similarity_maps
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, EmbeddingModel, ModelSettings, Projection, SearchModel, create_model
from deeprank.models.inference import forward
from deeprank.models.preprocessing import Preprocessing
from tests.drawing import encoded, pattern

PREPROCESSING = Preprocessing(size=128)
TINY = ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=16, frozen_stages=0, pretrained_share=0)
MODEL_KINDS: dict[str, dict[str, object]] = {
    "learned": {},
    "frozen, no head": {"embedding_dim": 0},
    "some stages frozen": {"frozen_stages": 3},
    "hidden layers": {"hidden_dims": (24, 20), "dropout": 0.5},
    "low resolution": {"multiscale": True},
    "the paper's": {"multiscale": True, "hidden_dims": (24,)},
    "search": {"pretrained_share": 0.4},
    "search, the paper's": {"pretrained_share": 0.4, "multiscale": True, "hidden_dims": (24,)},
    "norm after pooling": {"backbone": "test_convnext"},
    "search, norm after pooling": {"backbone": "test_convnext", "pretrained_share": 0.4},
}


@pytest.fixture(scope="module")
def jpegs() -> tuple[bytes, bytes]:
    first, second = (to_stored_image(encoded(pattern(seed, size))).jpeg for seed, size in ((1, (160, 130)), (2, (128, 190))))
    return first, second


def _model(kind: str) -> Embedder:
    """Return a model with random weights, biases and centers, whose pretrained and finetuned stages differ."""
    torch.manual_seed(0)
    model = create_model(TINY.model_copy(update=MODEL_KINDS[kind]))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                value.add_(0.1 * torch.randn(value.shape, generator=noise))
        if isinstance(model, SearchModel):
            next(model.finetuned.trainable.parameters()).mul_(1.2)
            # The raw familiarity of every image is 0 without reference images, in the middle of these limits.
            model.familiarity.limits.copy_(torch.tensor([-1.0, 1.0]))
    return model.eval()


def _embed(model: Embedder, jpegs: Sequence[bytes]) -> np.ndarray:
    return forward(model, torch.stack([PREPROCESSING(jpeg) for jpeg in jpegs]))


# Features are pairs: the contributions of the cells (h * w, c), and the contribution of no cell (c,).
Parts = tuple[Tensor, Tensor]


def _total(parts: Parts) -> Tensor:
    return parts[0].sum(0) + parts[1]


def _pooled(trainable: torch.nn.Module, features: Tensor) -> Parts:
    """Return the pooled features, by cell."""
    *stages, last = trainable.children()
    if hasattr(last, "norm"):
        outputs = torch.nn.Sequential(*stages)(features)[0].flatten(1).T
        cells, norm = outputs / len(outputs), last.norm
        deviation = (cells.sum(0).var(unbiased=False) + norm.eps).sqrt()
        cells, rest = (cells - cells.mean(1, keepdim=True)) / deviation * norm.weight, norm.bias
    else:
        outputs = torch.nn.Sequential(*stages[:-1])(features)[0].flatten(1).T
        cells, rest = outputs / len(outputs), torch.zeros(outputs.shape[1])
    assert torch.allclose(_total((cells, rest)), trainable(features)[0], atol=1e-4)
    return cells, rest


def _head_output(model: EmbeddingModel, pixels: Tensor, pooled: Parts) -> Parts:
    """Return the normalized output of the head, by cell, layer by layer."""
    cells, rest = pooled
    for layer in model.hidden_layers:
        if isinstance(layer, torch.nn.Linear):
            cells, rest = cells @ layer.weight.T, rest @ layer.weight.T + layer.bias
        elif isinstance(layer, torch.nn.ReLU):
            active = (_total((cells, rest)) > 0).float()
            cells, rest = cells * active, rest * active
    if model.low_resolution is not None:
        length = _total((cells, rest)).norm()
        low_resolution = model.low_resolution(pixels)[0].view(2, 96, 16)
        # A branch has 96 channels for each of 16 cells; a cell contributes nothing to the channels of other cells.
        cells = torch.cat([cells / length, *(torch.diag_embed(b).permute(1, 0, 2).flatten(1) for b in low_resolution)], dim=1)
        rest = torch.cat([rest / length, torch.zeros(low_resolution.numel())])
    if isinstance(model.head, torch.nn.Linear):
        cells, rest = cells @ model.head.weight.T, rest @ model.head.weight.T + model.head.bias
    length = _total((cells, rest)).norm()
    return cells / length, rest / length


def _projected(projection: Projection, pooled: Parts) -> Parts:
    cells, rest = pooled
    length = _total(pooled).norm()
    cells, rest = cells / length @ projection.matrix.T, rest / length @ projection.matrix.T
    length = _total((cells, rest)).norm()
    return cells / length, rest / length


@torch.no_grad()
def _expected_map(model: Embedder, jpeg: bytes, other: bytes, query: bytes) -> np.ndarray:
    """Return the similarity map of an image, computed by following each cell through the model layer by layer."""
    target = torch.from_numpy((_embed(model, [other]) * model.query_scale(_embed(model, [query])))[0])
    finetuned = model.finetuned if isinstance(model, SearchModel) else model
    pixels = finetuned.normalize_pixels(PREPROCESSING(jpeg)[None])
    frozen_features = finetuned.frozen(pixels)
    pooled = _pooled(finetuned.trainable, frozen_features)
    parts = [_head_output(finetuned, pixels, pooled)]
    if isinstance(model, SearchModel):
        shares = [(1 - model.pretrained_share) ** 0.5, model.pretrained_share**0.5]
        parts.append(_projected(model.projection, _pooled(model.pretrained, frozen_features)))
        parts = [(share * cells, share * rest) for share, (cells, rest) in zip(shares, parts, strict=True)]
    cells, rest = (torch.cat(tensors, dim=-1) for tensors in zip(*parts, strict=True))
    side = round(len(cells) ** 0.5)
    return (cells @ target + rest @ target / len(cells)).view(side, side).numpy()


@pytest.mark.parametrize("kind", MODEL_KINDS)
def test_a_map_is_each_cells_embedding_times_the_other_image(kind: str, jpegs: tuple[bytes, bytes]) -> None:
    model, (first, second) = _model(kind), jpegs
    result = similarity_maps(model, PREPROCESSING, first, second)
    assert result.first.shape == result.second.shape == (4, 4)
    assert result.first.dtype == np.float32
    assert np.allclose(result.first, _expected_map(model, first, second, query=first), atol=1e-5)
    assert np.allclose(result.second, _expected_map(model, second, first, query=first), atol=1e-5)


@pytest.mark.parametrize("kind", MODEL_KINDS)
def test_a_map_sums_to_the_similarity_of_the_embeddings(kind: str, jpegs: tuple[bytes, bytes]) -> None:
    model = _model(kind)
    result = similarity_maps(model, PREPROCESSING, *jpegs)
    embeddings = _embed(model, jpegs)
    assert result.similarity == pytest.approx(float(model.as_queries(embeddings[:1])[0] @ embeddings[1]), abs=1e-5)
    assert result.similarity == pytest.approx(1 - result.distance**2 / 2, abs=1e-6)
    assert result.first.sum() == pytest.approx(result.similarity, abs=1e-4)
    assert result.second.sum() == pytest.approx(result.similarity, abs=1e-4)


@pytest.mark.parametrize("side", [4, 5, 6, 7, 8])
def test_a_resized_map_keeps_sum_position_and_evenness(side: int) -> None:
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, 1], maps[1] = 2, 1
    single, even = _resize_preserving_sum(maps, side)
    assert single.sum() == pytest.approx(2)
    assert even.sum() == pytest.approx(16)
    assert (even * side**2 / 16).sub(1).abs().max() < 0.1
    coordinates = (torch.arange(side) + 0.5) / side
    center = (single.sum(1) @ coordinates / 2, single.sum(0) @ coordinates / 2)
    assert np.allclose(center, (0.5 / 4, 1.5 / 4), atol=0.05)


def test_a_map_has_the_size_of_the_feature_map(jpegs: tuple[bytes, bytes]) -> None:
    result = similarity_maps(_model("the paper's"), Preprocessing(size=192), *jpegs)
    assert result.first.shape == (6, 6)
    assert result.first.sum() == pytest.approx(result.similarity, abs=1e-4)


@pytest.mark.parametrize("kind", ["learned", "search, the paper's"])
def test_maps_are_symmetric_and_deterministic(kind: str, jpegs: tuple[bytes, bytes]) -> None:
    model, (first, second) = _model(kind), jpegs
    result, swapped, repeated = (
        similarity_maps(model, PREPROCESSING, *pair) for pair in ((first, second), (second, first), (first, second))
    )
    assert np.allclose(result.first, swapped.second, atol=1e-5)
    assert np.allclose(result.second, swapped.first, atol=1e-5)
    assert np.array_equal(result.first, repeated.first)
    assert (result.similarity, result.distance) == (repeated.similarity, repeated.distance)


def test_explaining_does_not_change_the_model(jpegs: tuple[bytes, bytes]) -> None:
    model = _model("search, the paper's")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    requires_grad = {name: value.requires_grad for name, value in model.named_parameters()}
    similarity_maps(model, PREPROCESSING, *jpegs)
    assert all(value.grad is None for value in model.parameters())
    assert {name: value.requires_grad for name, value in model.named_parameters()} == requires_grad
    assert not any(module.training or module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_threads_can_share_a_model() -> None:
    model = _model("search")
    pairs = [tuple(to_stored_image(encoded(pattern(2 * seed + i, (128, 128)))).jpeg for i in (0, 1)) for seed in range(4)]
    sequential = [similarity_maps(model, PREPROCESSING, *pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda pair: similarity_maps(model, PREPROCESSING, *pair), pairs * 2))
    for expected, result in zip(sequential * 2, parallel, strict=True):
        assert np.allclose(expected.first, result.first, atol=1e-6)
        assert np.allclose(expected.second, result.second, atol=1e-6)


def test_a_transformer_cannot_be_explained(jpegs: tuple[bytes, bytes]) -> None:
    model = create_model(TINY.model_copy(update={"backbone": "test_vit"})).eval()
    with pytest.raises(ModelError, match="only ConvNets can be explained"):
        similarity_maps(model, Preprocessing(size=160), *jpegs)


@pytest.fixture(scope="module")
def frozen() -> EmbeddingModel:
    """The frozen pretrained model: its maps are meaningful without training."""
    return EmbeddingModel(ModelSettings(embedding_dim=0)).eval()


def _compose(background: tuple[int, int, int], products: dict[tuple[int, int], Image.Image]) -> bytes:
    """Return a stored image of 8 x 8 cells; each product covers 3 x 3 of them, its top left cell is (row, column)."""
    image = Image.new("RGB", (256, 256), background)
    for (row, column), product in products.items():
        image.paste(product.resize((96, 96)), (32 * column, 32 * row))
    return to_stored_image(encoded(image)).jpeg


def _share_inside(contributions: np.ndarray, row: int, column: int) -> float:
    """Return the share of the positive contributions that is in the 3 x 3 cells from (row, column)."""
    positive = np.clip(contributions, 0, None)
    return float(positive[row : row + 3, column : column + 3].sum() / positive.sum())


def test_a_product_on_two_backgrounds_makes_the_similarity(frozen: EmbeddingModel) -> None:
    product = draw_image(12, 2)
    first, second = _compose((90, 120, 160), {(1, 1): product}), _compose((190, 180, 150), {(4, 4): product})
    result = similarity_maps(frozen, Preprocessing(size=256), first, second)
    assert _share_inside(result.first, 1, 1) > 0.5
    assert _share_inside(result.second, 4, 4) > 0.5


@pytest.mark.parametrize("classes", [(12, 0, 30), (0, 12, 30), (6, 18, 24)])
def test_the_shared_one_of_two_products_makes_the_similarity(frozen: EmbeddingModel, classes: tuple[int, int, int]) -> None:
    shared, only_first, only_second = (draw_image(product, 2, size=96).crop((0, 0, 96, 96)) for product in classes)
    first = _compose((90, 120, 160), {(1, 1): shared, (4, 4): only_first})
    second = _compose((190, 180, 150), {(1, 1): only_second, (4, 4): shared})
    result = similarity_maps(frozen, Preprocessing(size=256), first, second)
    assert _share_inside(result.first, 1, 1) > 1.2 * _share_inside(result.first, 4, 4)
    assert _share_inside(result.second, 4, 4) > 1.2 * _share_inside(result.second, 1, 1)
    for contributions, start in ((result.first, 1), (result.second, 4)):
        largest = np.unravel_index(contributions.argmax(), contributions.shape)
        assert all(start <= index < start + 3 for index in largest)


def _query_table(catalogue: Catalogue, embeddings: np.ndarray) -> pd.DataFrame:
    """Return the test queries with their first neighbor in train."""
    labels, gallery, rows = catalogue.frame["label"].to_numpy(), catalogue.rows("train"), catalogue.rows("test")
    nearest = np.array([gallery[np.argmin(np.linalg.norm(embeddings[gallery] - embeddings[row], axis=1))] for row in rows])
    return pd.DataFrame(
        {"row": rows, "label": labels[rows], "fine.recall_at_1": (labels[nearest] == labels[rows]).astype(float), "nearest": nearest}
    )


def test_neighbors_at_the_shortest_distance_are_explained(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray) -> None:
    queries = _query_table(catalogue, embeddings)
    for hit, pairs in zip((1.0, 0.0), explain_first_neighbors(catalogue, bundle, queries, embeddings, count=1), strict=True):
        table = queries[queries["fine.recall_at_1"] == hit]
        distances = np.linalg.norm(embeddings[table["row"]] - embeddings[table["nearest"]], axis=1)
        closest = table.iloc[int(distances.argmin())]
        assert [(pair.query, pair.neighbor) for pair in pairs] == [(closest["row"], closest["nearest"])]
        assert pairs[0].distance == pytest.approx(distances.min(), abs=1e-5)
        expected = similarity_maps(*bundle.load(), *catalogue.read_jpegs([closest["row"], closest["nearest"]]))
        assert np.array_equal(pairs[0].query_map, expected.first)
        assert np.array_equal(pairs[0].neighbor_map, expected.second)


def test_without_wrong_neighbors_none_is_explained(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray) -> None:
    queries = _query_table(catalogue, embeddings)
    for hits in (queries[queries["fine.recall_at_1"] == 1].head(1), queries.head(0)):
        correct, wrong = explain_first_neighbors(catalogue, bundle, hits, embeddings)
        assert (len(correct), len(wrong)) == (len(hits), 0)


def test_a_query_without_its_class_in_the_gallery_is_neither(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray) -> None:
    queries = _query_table(catalogue, embeddings).assign(**{"fine.recall_at_1": float("nan")})
    assert explain_first_neighbors(catalogue, bundle, queries, embeddings) == ([], [])


def test_the_gradient_of_the_norm_is_excluded(jpegs: tuple[bytes, bytes]) -> None:
    """Gradient times activation through a norm sums to 0, as scaling a vector does not change its direction."""
    model = _model("frozen, no head")
    result = similarity_maps(model, PREPROCESSING, jpegs[0], jpegs[0])
    cells, _ = _pooled(model.trainable, model.frozen(model.normalize_pixels(PREPROCESSING(jpegs[0])[None])))
    unit = normalize(cells.sum(0), dim=0)
    assert np.allclose(result.first.ravel(), (cells @ unit / cells.sum(0).norm()).detach(), atol=1e-5)
    assert result.first.sum() == pytest.approx(1, abs=1e-5)

"""What is drawn as the reason of a likeness is its exact division among the places of either image."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from deeprank.data.catalogue import Catalogue
from deeprank.data.images import canonical
from deeprank.data.synthetic import render
from deeprank.errors import ModelError
from deeprank.evaluation.explain import SIDE, Explanation, _regridded, explained, explanation_figure, overlay, overlay_png, similarity_maps
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, EmbeddingModel, ModelSettings, Projection, SearchModel, create_model
from deeprank.models.inference import embed_jpegs
from deeprank.models.preprocessing import Preprocessing
from deeprank.plotting.style import NEUTRAL, RIGHT, WRONG, short_label
from tests.drawing import encoded, pattern

PREPROCESSING = Preprocessing(size=128)
TINY = ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=16, frozen_stages=0, pretrained_share=0)
KINDS: dict[str, dict[str, object]] = {
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
def images() -> tuple[bytes, bytes]:
    first, second = (canonical(encoded(pattern(seed, size))).jpeg for seed, size in ((1, (160, 130)), (2, (128, 190))))
    return first, second


def _net(kind: str) -> Embedder:
    """Return a net with random weights, biases and centers; what was before training differs from what is after it."""
    torch.manual_seed(0)
    model = create_model(TINY.model_copy(update=KINDS[kind]))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                value.add_(0.1 * torch.randn(value.shape, generator=noise))
        if isinstance(model, SearchModel):
            next(model.tuned.upper.parameters()).mul_(1.2)
            for projection in (model.before, model.after):
                projection.center.copy_(0.05 * torch.randn(projection.center.shape, generator=noise))
    return model.eval()


def _cells(upper: torch.nn.Module, shared: Tensor) -> tuple[Tensor, Tensor]:
    """Return each cell's part of the pooled features (h * w, c), and the part that no cell has (c,)."""
    *stages, last = upper.children()
    if hasattr(last, "norm"):
        found = torch.nn.Sequential(*stages)(shared)[0].flatten(1).T
        cells, norm = found / len(found), last.norm
        deviation = (cells.sum(0).var(unbiased=False) + norm.eps).sqrt()
        cells, rest = (cells - cells.mean(1, keepdim=True)) / deviation * norm.weight, norm.bias
    else:
        found = torch.nn.Sequential(*stages[:-1])(shared)[0].flatten(1).T
        cells, rest = found / len(found), torch.zeros(found.shape[1])
    assert torch.allclose(cells.sum(0) + rest, upper(shared)[0], atol=1e-4)
    return cells, rest


def _learned(model: EmbeddingModel, pixels: Tensor, cells: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Return each cell's part of the learned embedding (h * w, d), and the part that no cell has, layer by layer."""
    for layer in model.hidden_layers:
        if isinstance(layer, torch.nn.Linear):
            cells, rest = cells @ layer.weight.T, rest @ layer.weight.T + layer.bias
        elif isinstance(layer, torch.nn.ReLU):
            awake = (cells.sum(0) + rest > 0).float()
            cells, rest = cells * awake, rest * awake
    if model.low_resolution is not None:
        length = (cells.sum(0) + rest).norm()
        low = model.low_resolution(pixels)[0].view(2, 96, 16)
        # Of each of 16 places a branch holds 96 numbers; in the other places' numbers a place has no part.
        cells = torch.cat([cells / length, *(torch.diag_embed(branch).permute(1, 0, 2).flatten(1) for branch in low)], dim=1)
        rest = torch.cat([rest / length, torch.zeros(low.numel())])
    if isinstance(model.head, torch.nn.Linear):
        cells, rest = cells @ model.head.weight.T, rest @ model.head.weight.T + model.head.bias
    length = (cells.sum(0) + rest).norm()
    return cells / length, rest / length


def _general(projection: Projection, cells: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    length = (cells.sum(0) + rest).norm()
    cells, rest = cells / length @ projection.matrix.T, (rest / length - projection.center) @ projection.matrix.T
    length = (cells.sum(0) + rest).norm()
    return cells / length, rest / length


@torch.no_grad()
def _slowly(model: Embedder, jpeg: bytes, other: bytes) -> np.ndarray:
    """Return the map of an image, the embedding of each cell followed through the net by hand."""
    towards = torch.from_numpy(embed_jpegs(model, PREPROCESSING, [other])[0])
    tuned = model.tuned if isinstance(model, SearchModel) else model
    pixels = tuned.pixels(PREPROCESSING(jpeg)[None])
    shared = tuned.lower(pixels)
    after = _cells(tuned.upper, shared)
    parts = [_learned(tuned, pixels, *after)]
    if isinstance(model, SearchModel):
        shares = [(1 - model.pretrained_share) ** 0.5, (model.pretrained_share / 2) ** 0.5, (model.pretrained_share / 2) ** 0.5]
        parts += [_general(model.before, *_cells(model.original, shared)), _general(model.after, *after)]
        parts = [(share * cells, share * rest) for share, (cells, rest) in zip(shares, parts, strict=True)]
    cells, rest = (torch.cat(of, dim=-1) for of in zip(*parts, strict=True))
    side = round(len(cells) ** 0.5)
    return (cells @ towards + rest @ towards / len(cells)).view(side, side).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_cells_share_is_its_own_embedding_times_the_other_images(kind: str, images: tuple[bytes, bytes]) -> None:
    model, (first, second) = _net(kind), images
    found = similarity_maps(model, PREPROCESSING, first, second)
    assert found.first.shape == found.second.shape == (4, 4)
    assert found.first.dtype == np.float32
    assert np.allclose(found.first, _slowly(model, first, second), atol=1e-5)
    assert np.allclose(found.second, _slowly(model, second, first), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_sum_to_the_similarity_that_search_sees(kind: str, images: tuple[bytes, bytes]) -> None:
    model = _net(kind)
    found = similarity_maps(model, PREPROCESSING, *images)
    one, other = embed_jpegs(model, PREPROCESSING, images).astype(np.float64)
    assert found.similarity == pytest.approx(one @ other, abs=1e-5)
    assert found.distance == pytest.approx(np.linalg.norm(one - other), abs=1e-5)
    assert found.first.sum() == pytest.approx(found.similarity, abs=1e-4)
    assert found.second.sum() == pytest.approx(found.similarity, abs=1e-4)


@pytest.mark.parametrize("side", [4, 5, 6, 7, 8])
def test_cells_of_branches_on_another_grid_keep_sum_place_and_evenness(side: int) -> None:
    cells = torch.zeros(2, 4, 4)
    cells[0, 0, 1], cells[1] = 2, 1
    one, even = _regridded(cells, side)
    assert one.sum() == pytest.approx(2)
    assert even.sum() == pytest.approx(16)
    assert (even * side**2 / 16).sub(1).abs().max() < 0.1
    centers = (torch.arange(side) + 0.5) / side
    middle = (one.sum(1) @ centers / 2, one.sum(0) @ centers / 2)
    assert np.allclose(middle, (0.5 / 4, 1.5 / 4), atol=0.05)


def test_any_size_of_image_can_be_explained(images: tuple[bytes, bytes]) -> None:
    found = similarity_maps(_net("the paper's"), Preprocessing(size=192), *images)
    assert found.first.shape == (6, 6)
    assert found.first.sum() == pytest.approx(found.similarity, abs=1e-4)


@pytest.mark.parametrize("kind", ["learned", "search, the paper's"])
def test_swapping_the_images_swaps_the_maps_and_asking_again_changes_nothing(kind: str, images: tuple[bytes, bytes]) -> None:
    model, (first, second) = _net(kind), images
    found, swapped, again = (similarity_maps(model, PREPROCESSING, *pair) for pair in ((first, second), (second, first), (first, second)))
    assert np.allclose(found.first, swapped.second, atol=1e-5)
    assert np.allclose(found.second, swapped.first, atol=1e-5)
    assert np.array_equal(found.first, again.first)
    assert (found.similarity, found.distance) == (again.similarity, again.distance)


def test_the_net_is_left_as_it_was(images: tuple[bytes, bytes]) -> None:
    model = _net("search, the paper's")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wants = {name: value.requires_grad for name, value in model.named_parameters()}
    similarity_maps(model, PREPROCESSING, *images)
    assert all(value.grad is None for value in model.parameters())
    assert {name: value.requires_grad for name, value in model.named_parameters()} == wants
    assert not any(module.training or module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_threads_that_share_a_net_do_not_see_each_others_images() -> None:
    model = _net("search")
    pairs = [tuple(canonical(encoded(pattern(2 * seed + i, (128, 128)))).jpeg for i in (0, 1)) for seed in range(4)]
    alone = [similarity_maps(model, PREPROCESSING, *pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: similarity_maps(model, PREPROCESSING, *pair), pairs * 2))
    for one, other in zip(alone * 2, together, strict=True):
        assert np.allclose(one.first, other.first, atol=1e-6)
        assert np.allclose(one.second, other.second, atol=1e-6)


def test_a_transformer_cannot_be_explained(images: tuple[bytes, bytes]) -> None:
    model = create_model(TINY.model_copy(update={"backbone": "test_vit"})).eval()
    with pytest.raises(ModelError, match="only ConvNets can be explained"):
        similarity_maps(model, Preprocessing(size=160), *images)


@pytest.fixture(scope="module")
def frozen() -> EmbeddingModel:
    """A net that has seen a million images: what it says of pictures is worth looking at."""
    return EmbeddingModel(ModelSettings(embedding_dim=0)).eval()


def _laid_out(wall: tuple[int, int, int], products: dict[tuple[int, int], Image.Image]) -> bytes:
    """Return a stored image of 8 x 8 cells; each product covers 3 x 3 of them from a cell (row, column) on."""
    image = Image.new("RGB", (256, 256), wall)
    for (row, column), product in products.items():
        image.paste(product.resize((96, 96)), (32 * column, 32 * row))
    return canonical(encoded(image)).jpeg


def _within(contributions: np.ndarray, row: int, column: int) -> float:
    """Return the share of what speaks for the likeness that lies in 3 x 3 cells."""
    mass = np.clip(contributions, 0, None)
    return float(mass[row : row + 3, column : column + 3].sum() / mass.sum())


def test_one_product_before_two_walls_is_what_makes_the_likeness(frozen: EmbeddingModel) -> None:
    product = render(12, 2)
    first, second = _laid_out((90, 120, 160), {(1, 1): product}), _laid_out((190, 180, 150), {(4, 4): product})
    found = similarity_maps(frozen, Preprocessing(size=256), first, second)
    assert _within(found.first, 1, 1) > 0.5
    assert _within(found.second, 4, 4) > 0.5


@pytest.mark.parametrize("classes", [(12, 0, 30), (0, 12, 30), (6, 18, 24)])
def test_of_two_products_the_shared_one_makes_the_likeness(frozen: EmbeddingModel, classes: tuple[int, int, int]) -> None:
    shared, one, other = (render(product, 2, size=96).crop((0, 0, 96, 96)) for product in classes)
    first = _laid_out((90, 120, 160), {(1, 1): shared, (4, 4): one})
    second = _laid_out((190, 180, 150), {(1, 1): other, (4, 4): shared})
    found = similarity_maps(frozen, Preprocessing(size=256), first, second)
    assert _within(found.first, 1, 1) > 1.2 * _within(found.first, 4, 4)
    assert _within(found.second, 4, 4) > 1.2 * _within(found.second, 1, 1)
    for contributions, start in ((found.first, 1), (found.second, 4)):
        strongest = np.unravel_index(contributions.argmax(), contributions.shape)
        assert all(start <= place < start + 3 for place in strongest)


def test_a_map_glows_where_a_region_adds_and_is_grey_elsewhere() -> None:
    jpeg = canonical(encoded(pattern(3, (200, 128)))).jpeg
    contributions = np.full((4, 4), -0.1, dtype=np.float32)
    contributions[1, 2] = 0.5
    picture = np.asarray(overlay(jpeg, contributions), dtype=float)
    assert picture.shape == (SIDE, SIDE, 3)
    color = picture.max(axis=2) - picture.min(axis=2)
    cell = SIDE // 4
    assert color[cell : 2 * cell, 2 * cell : 3 * cell].mean() > 60
    assert color[:, :cell].max() <= 1
    assert color[2 * cell + cell // 2 + 8 :].max() <= 1
    # Grey is the dimmed image: its center square.
    seen = Image.open(io.BytesIO(jpeg)).convert("L").crop((36, 0, 164, 128)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    assert np.abs(picture[:, :cell].mean(axis=2) - 0.6 * np.asarray(seen, dtype=float)[:, :cell]).mean() < 2
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(overlay_png(jpeg, contributions)))), picture)


def test_the_scale_is_the_same_for_all_pairs() -> None:
    jpeg = canonical(encoded(pattern(3, (128, 128)))).jpeg
    faint, strong = (np.asarray(overlay(jpeg, np.full((4, 4), share / 16, dtype=np.float32)), dtype=float) for share in (0.1, 0.9))
    assert (strong.max(axis=2) - strong.min(axis=2)).mean() > 3 * (faint.max(axis=2) - faint.min(axis=2)).mean()


def test_a_pair_is_drawn_beside_its_maps(images: tuple[bytes, bytes]) -> None:
    found = Explanation(0.875, 0.5, *np.full((2, 4, 4), 0.875 / 16, dtype=np.float32))
    figure = explanation_figure(found, *images, ("a$b.jpg", "x" * 60 + "c.jpg"))
    assert figure.get_suptitle().startswith("Distance 0.50")
    assert [axes.get_title() for axes in figure.axes] == [r"a\$b.jpg", "x" * 35 + "c.jpg", "", ""]
    for axes, jpeg in zip(figure.axes[2:], images, strict=True):
        assert np.array_equal(axes.images[0].get_array(), np.asarray(overlay(jpeg, found.first)))
    figure.savefig(io.BytesIO())


def _queries(catalogue: Catalogue, embeddings: np.ndarray) -> pd.DataFrame:
    labels, gallery, rows = catalogue.frame["label"].to_numpy(), catalogue.rows("train"), catalogue.rows("test")
    near = np.array([gallery[np.argmin(np.linalg.norm(embeddings[gallery] - embeddings[row], axis=1))] for row in rows])
    return pd.DataFrame(
        {"row": rows, "label": labels[rows], "fine.recall_at_1": (labels[near] == labels[rows]).astype(float), "nearest": near}
    )


def test_the_surest_answers_are_explained(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray) -> None:
    queries = _queries(catalogue, embeddings)
    figure = explained(catalogue, bundle, queries, embeddings, count=1)
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 8
    labels = catalogue.frame["label"]
    for half, (hit, color) in zip((drawn[:4], drawn[4:]), ((1.0, RIGHT), (0.0, WRONG)), strict=True):
        of = queries[queries["fine.recall_at_1"] == hit]
        distances = np.linalg.norm(embeddings[of["row"]] - embeddings[of["nearest"]], axis=1)
        surest = of.iloc[int(distances.argmin())]
        captions = [axes.get_title() for axes in half]
        expected = [
            f"query\n{short_label(labels[surest['row']])}",
            "",
            "",
            f"{distances.min():.2f}\n{short_label(labels[surest['nearest']])}",
        ]
        assert captions == expected
        assert [to_hex(axes.spines["top"].get_edgecolor()) for axes in half] == [NEUTRAL, NEUTRAL, color, color]
        found = similarity_maps(*bundle.load(), *catalogue.images([surest["row"], surest["nearest"]]))
        shown = [
            overlay(*one) for one in zip(catalogue.images([surest["row"], surest["nearest"]]), (found.first, found.second), strict=True)
        ]
        assert all(np.array_equal(axes.images[0].get_array(), np.asarray(one)) for axes, one in zip(half[1:3], shown, strict=True))
    assert [half.get_suptitle() for half in figure.subfigs] == [
        f"The surest of {int((queries['fine.recall_at_1'] == hit).sum())} {kind} answers" for hit, kind in ((1, "right"), (0, "wrong"))
    ]


def test_where_nothing_went_wrong_nothing_is_drawn(catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray) -> None:
    queries = _queries(catalogue, embeddings)
    for hits in (queries[queries["fine.recall_at_1"] == 1].head(1), queries.head(0)):
        figure = explained(catalogue, bundle, hits, embeddings)
        assert sum(bool(axes.images) for axes in figure.axes) == 4 * len(hits)
        assert "none" in [text.get_text() for text in figure.subfigs[1].texts]
        figure.savefig(io.BytesIO())


def test_a_query_whose_class_the_gallery_lacks_is_neither_right_nor_wrong(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray
) -> None:
    queries = _queries(catalogue, embeddings).assign(**{"fine.recall_at_1": float("nan")})
    assert not any(axes.images for axes in explained(catalogue, bundle, queries, embeddings).axes)


def test_the_norms_gradient_does_not_cancel_what_the_cells_add(images: tuple[bytes, bytes]) -> None:
    """Gradient times activation through a norm sums to nothing, as a longer vector has the same direction."""
    model = _net("frozen, no head")
    found = similarity_maps(model, PREPROCESSING, images[0], images[0])
    cells, _ = _cells(model.upper, model.lower(model.pixels(PREPROCESSING(images[0])[None])))
    unit = normalize(cells.sum(0), dim=0)
    assert np.allclose(found.first.ravel(), (cells @ unit / cells.sum(0).norm()).detach(), atol=1e-5)
    assert found.first.sum() == pytest.approx(1, abs=1e-5)

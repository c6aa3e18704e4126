"""The embedding net: unit length, every coordinate free, nothing dependent on the rest of the batch."""

import pytest
import torch

from deeprank.errors import ConfigError
from deeprank.models.backbone import create_backbone
from deeprank.models.embedding_model import EmbeddingModel, LowResolutionBranches, ModelSettings, Projection, SearchModel, create_model


@pytest.fixture(scope="module")
def model(model_settings: ModelSettings) -> EmbeddingModel:
    torch.manual_seed(0)
    return EmbeddingModel(model_settings).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_embeddings_are_float32_of_unit_length(model: EmbeddingModel, images: torch.Tensor) -> None:
    found = model(images)
    assert (found.shape, found.dtype, model.embedding_dim) == ((5, 16), torch.float32, 16)
    assert torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-6)


def test_negative_coordinates_and_their_gradients_survive(model: EmbeddingModel, images: torch.Tensor) -> None:
    found = model(images)
    assert 0.2 < (found < 0).float().mean() < 0.8
    towards = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    weight = model.head.weight
    (gradient,) = torch.autograd.grad((found * towards).sum(), weight)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_bytes_and_floats_of_the_same_pixels_are_the_same_image(model: EmbeddingModel, images: torch.Tensor) -> None:
    assert torch.equal(model(images), model(images.float()))


def test_pixels_are_normalised_with_the_backbones_mean_and_deviation(model_settings: ModelSettings, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    backbone, mean, std = create_backbone(model_settings.backbone, model_settings.weights)
    torch.manual_seed(0)
    model = EmbeddingModel(model_settings)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))
    expected = torch.nn.functional.normalize(model.head(backbone.eval()((images / 255 - mean) / std)), dim=1)
    assert torch.allclose(model(images), expected, atol=1e-4)


def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(model: EmbeddingModel, images: torch.Tensor) -> None:
    together = model(images)
    for i in range(len(images)):
        assert torch.allclose(model(images[i : i + 1])[0], together[i], atol=1e-5)


def test_images_of_any_size_can_be_embedded(model: EmbeddingModel) -> None:
    assert model(torch.zeros(1, 3, 96, 80, dtype=torch.uint8)).shape == (1, 16)


def test_no_dimensions_keep_the_convnets_own_features(model_settings: ModelSettings, images: torch.Tensor) -> None:
    model = EmbeddingModel(model_settings.model_copy(update={"embedding_dim": 0})).eval()
    assert model.embedding_dim == model.width
    assert model(images).shape == (5, model.embedding_dim)
    assert not list(model.head.parameters())


def test_stages_that_keep_their_weights_stand_below_and_get_no_gradient(model_settings: ModelSettings, images: torch.Tensor) -> None:
    model = EmbeddingModel(model_settings.model_copy(update={"frozen_stages": 2}))
    model(images).sum().backward()
    assert all(parameter.grad is None for parameter in model.lower.parameters())
    assert all(parameter.grad is not None for parameter in model.upper.parameters())


def test_freezing_everything_is_refused(model_settings: ModelSettings) -> None:
    with pytest.raises(ConfigError, match="frozen_stages: 99 leaves nothing to learn: test_efficientnet has 10 stages"):
        EmbeddingModel(model_settings.model_copy(update={"frozen_stages": 99}))


def test_the_low_resolution_branches_have_the_papers_shapes() -> None:
    branches = LowResolutionBranches()
    pixels = torch.randn(2, 3, 224, 224)
    small = torch.nn.functional.interpolate(pixels, size=(57, 57))
    assert branches.fine[0](small).shape == (2, 96, 15, 15)
    assert branches.coarse[0](small[:, :, :29, :29]).shape == (2, 96, 8, 8)
    found = branches(pixels)
    assert found.shape == (2, branches.width) == (2, 3072)
    assert torch.allclose(found[:, :1536].norm(dim=1), torch.ones(2), atol=1e-6)
    assert torch.allclose(found[:, 1536:].norm(dim=1), torch.ones(2), atol=1e-6)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit"])
def test_any_backbone_takes_the_papers_branches_and_layers(backbone: str) -> None:
    settings = ModelSettings(
        backbone=backbone,
        weights="none",
        embedding_dim=8,
        multiscale=True,
        hidden_dims=(24, 12),
        dropout=0.6,
        frozen_stages=0,
        pretrained_share=0,
    )
    model = EmbeddingModel(settings)
    images = torch.randint(0, 256, (3, 3, 160, 160), dtype=torch.uint8)
    assert model(images).shape == (3, 8)
    model.train()
    model(images).sum().backward()
    assert all(
        p.grad is not None for p in [*model.low_resolution.parameters(), *model.hidden_layers.parameters(), *model.head.parameters()]
    )
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_the_search_net_puts_what_was_known_beside_what_was_learned(model_settings: ModelSettings, images: torch.Tensor) -> None:
    model = create_model(model_settings.model_copy(update={"pretrained_share": 0.4})).eval()
    assert isinstance(model, SearchModel)
    found = model(images)
    assert found.shape == (5, model.embedding_dim)
    parts = found.split([16, 192, 192], dim=1)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert torch.allclose(part.square().sum(1), torch.full((5,), share), atol=1e-5)
    assert torch.allclose(parts[0], 0.6**0.5 * model.tuned(images), atol=1e-6)
    # Before training both copies are one net.
    assert torch.allclose(parts[1], parts[2], atol=1e-6)
    with torch.no_grad():
        next(model.tuned.upper.parameters()).mul_(3)
    assert torch.equal(model(images).split([16, 192, 192], dim=1)[1], parts[1])


def test_general_features_are_centered_on_the_images_given(model_settings: ModelSettings, images: torch.Tensor) -> None:
    model = create_model(model_settings.model_copy(update={"pretrained_share": 0.4})).eval()
    model.center([images[:3], images[3:]])
    features = torch.nn.functional.normalize(model.tuned.upper(model.tuned.lower(model.tuned.pixels(images))))
    assert torch.allclose(model.before.center, features.mean(0), atol=1e-6)
    assert torch.allclose(model.after.center, features.mean(0), atol=1e-6)


def test_a_projection_keeps_angles() -> None:
    points = torch.nn.functional.normalize(torch.randn(40, 1280, generator=torch.Generator().manual_seed(0)))
    found = Projection(1280)(points)
    assert found.shape == (40, 192)
    assert (found @ found.T - points @ points.T).abs().max() < 0.35
    assert torch.allclose(Projection(50)(points[:, :50] / points[:, :50].norm(dim=1, keepdim=True)).norm(dim=1), torch.ones(40))


def test_without_general_features_the_trained_net_searches(model_settings: ModelSettings) -> None:
    assert isinstance(create_model(model_settings.model_copy(update={"pretrained_share": 0})), EmbeddingModel)


@pytest.mark.parametrize("backbone", ["vit_small_patch14_dinov2", "inception_v3"])
def test_nets_that_dislike_small_or_odd_sizes_embed_too(backbone: str) -> None:
    model = EmbeddingModel(ModelSettings(backbone=backbone, weights="none", embedding_dim=8, frozen_stages=0)).eval()
    assert model(torch.zeros(1, 3, 160, 160, dtype=torch.uint8)).shape == (1, 8)

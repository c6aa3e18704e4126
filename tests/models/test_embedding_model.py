"""Embeddings have unit length and free signs, and do not depend on the rest of the batch."""

import numpy as np
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
    embeddings = model(images)
    assert (embeddings.shape, embeddings.dtype, model.embedding_dim) == ((5, 16), torch.float32, 16)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(5), atol=1e-6)


def test_negative_values_and_their_gradients_are_kept(model: EmbeddingModel, images: torch.Tensor) -> None:
    embeddings = model(images)
    assert 0.2 < (embeddings < 0).float().mean() < 0.8
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    weight = model.head.weight
    (gradient,) = torch.autograd.grad((embeddings * direction).sum(), weight)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_bytes_and_floats_of_one_image_embed_equally(model: EmbeddingModel, images: torch.Tensor) -> None:
    assert torch.equal(model(images), model(images.float()))


def test_pixels_are_normalized_as_the_backbone_needs(model_settings: ModelSettings, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    backbone, mean, std = create_backbone(model_settings.backbone, model_settings.weights)
    torch.manual_seed(0)
    model = EmbeddingModel(model_settings)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))
    expected = torch.nn.functional.normalize(model.head(backbone.eval()((images / 255 - mean) / std)), dim=1)
    assert torch.allclose(model(images), expected, atol=1e-4)


def test_an_embedding_does_not_depend_on_the_batch(model: EmbeddingModel, images: torch.Tensor) -> None:
    together = model(images)
    for i in range(len(images)):
        assert torch.allclose(model(images[i : i + 1])[0], together[i], atol=1e-5)


def test_images_of_any_size_can_be_embedded(model: EmbeddingModel) -> None:
    assert model(torch.zeros(1, 3, 96, 80, dtype=torch.uint8)).shape == (1, 16)


def test_embedding_dim_0_returns_the_backbone_features(model_settings: ModelSettings, images: torch.Tensor) -> None:
    model = EmbeddingModel(model_settings.model_copy(update={"embedding_dim": 0})).eval()
    assert model.embedding_dim == model.num_features
    assert model(images).shape == (5, model.embedding_dim)
    assert not list(model.head.parameters())


def test_frozen_stages_get_no_gradient(model_settings: ModelSettings, images: torch.Tensor) -> None:
    model = EmbeddingModel(model_settings.model_copy(update={"frozen_stages": 2}))
    model(images).sum().backward()
    assert all(parameter.grad is None for parameter in model.frozen.parameters())
    assert all(parameter.grad is not None for parameter in model.trainable.parameters())


def test_freezing_all_stages_is_refused(model_settings: ModelSettings) -> None:
    with pytest.raises(ConfigError, match="frozen_stages: 99 leaves no stage to train: test_efficientnet has 10 stages; lower it"):
        EmbeddingModel(model_settings.model_copy(update={"frozen_stages": 99}))


def test_the_low_resolution_branches_have_the_papers_shapes() -> None:
    branches = LowResolutionBranches()
    pixels = torch.randn(2, 3, 224, 224)
    small = torch.nn.functional.interpolate(pixels, size=(57, 57))
    assert branches.fine[0](small).shape == (2, 96, 15, 15)
    assert branches.coarse[0](small[:, :, :29, :29]).shape == (2, 96, 8, 8)
    features = branches(pixels)
    assert features.shape == (2, branches.num_features) == (2, 3072)
    assert torch.allclose(features[:, :1536].norm(dim=1), torch.ones(2), atol=1e-6)
    assert torch.allclose(features[:, 1536:].norm(dim=1), torch.ones(2), atol=1e-6)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit"])
def test_any_backbone_can_have_branches_and_hidden_layers(backbone: str) -> None:
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


@pytest.fixture
def search_model(model_settings: ModelSettings) -> SearchModel:
    model = create_model(model_settings.model_copy(update={"pretrained_share": 0.4})).eval()
    assert isinstance(model, SearchModel)
    return model


def test_the_search_model_adds_pretrained_features(search_model: SearchModel, images: torch.Tensor) -> None:
    embeddings = search_model(images)
    assert embeddings.shape == (5, search_model.embedding_dim)
    # The tiny backbone has 256 features, fewer than PROJECTION_DIM.
    learned, pretrained = embeddings.split([16, 256], dim=1)
    for part, share in ((learned, 0.6), (pretrained, 0.4)):
        assert torch.allclose(part.square().sum(1), torch.full((5,), share), atol=1e-5)
    assert torch.allclose(learned, 0.6**0.5 * search_model.finetuned(images), atol=1e-6)
    with torch.no_grad():
        next(search_model.finetuned.trainable.parameters()).mul_(3)
    assert torch.equal(search_model(images).split([16, 256], dim=1)[1], pretrained)


def test_train_images_set_the_scale_of_familiarity(search_model: SearchModel, images: torch.Tensor) -> None:
    search_model.fit_familiarity([images[:3], images[3:]])
    embeddings = search_model(images).detach().numpy()
    assert torch.allclose(search_model.familiarity.reference, torch.from_numpy(search_model.pretrained_embeddings(embeddings)), atol=1e-5)
    assert search_model.query_familiarity(embeddings).tolist() == [1] * 5


@pytest.mark.parametrize(("familiarity", "shares"), [(1.0, (0.6, 0.4)), (0.5, (0.325, 0.675)), (0.0, (0.05, 0.95))])
def test_an_unfamiliar_query_counts_pretrained_features_more(
    search_model: SearchModel, images: torch.Tensor, familiarity: float, shares: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = search_model(images).detach().numpy()
    raw = search_model.familiarity.raw(torch.from_numpy(search_model.pretrained_embeddings(embeddings[:1])))
    # The limits put the first image at the familiarity that is tested.
    search_model.familiarity.limits.copy_(torch.tensor([raw - familiarity * 0.1, raw + (1 - familiarity) * 0.1]))
    query = embeddings[:1]
    assert search_model.query_familiarity(query) == pytest.approx([familiarity], abs=1e-5)
    learned, pretrained = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in np.split(embeddings, [16], axis=1))
    similarities = shares[0] * learned[0] @ learned.T + shares[1] * pretrained[0] @ pretrained.T
    assert search_model.as_queries(query)[0] @ embeddings.T == pytest.approx(similarities, abs=1e-5)
    distances = search_model.query_distances(query.repeat(5, axis=0), embeddings)
    assert distances**2 == pytest.approx(2 - 2 * similarities, abs=1e-5)


def test_a_projection_preserves_angles() -> None:
    points = torch.nn.functional.normalize(torch.randn(40, 1280, generator=torch.Generator().manual_seed(0)))
    projected = Projection(1280)(points)
    assert projected.shape == (40, 640)
    assert (projected @ projected.T - points @ points.T).abs().max() < 0.35
    assert torch.allclose(Projection(50)(points[:, :50] / points[:, :50].norm(dim=1, keepdim=True)).norm(dim=1), torch.ones(40))


def test_without_pretrained_share_the_trained_model_searches(model_settings: ModelSettings) -> None:
    assert isinstance(create_model(model_settings.model_copy(update={"pretrained_share": 0})), EmbeddingModel)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "mobilenetv4_conv_small_035", "lcnet_035", "ghostnet_050"])
@pytest.mark.parametrize("embedding_dim", [0, 8])
def test_any_convnet_can_be_the_backbone(backbone: str, embedding_dim: int) -> None:
    model = EmbeddingModel(ModelSettings(backbone=backbone, weights="none", embedding_dim=embedding_dim)).eval()
    assert model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, model.embedding_dim)


@pytest.mark.parametrize("backbone", ["vit_small_patch14_dinov2", "inception_v3"])
def test_models_with_restricted_input_sizes_embed_too(backbone: str) -> None:
    model = EmbeddingModel(ModelSettings(backbone=backbone, weights="none", embedding_dim=8, frozen_stages=0)).eval()
    assert model(torch.zeros(1, 3, 160, 160, dtype=torch.uint8)).shape == (1, 8)

"""The embedding net: unit length, every coordinate free, nothing dependent on the rest of the batch."""

import pytest
import torch

from deeprank.errors import ConfigError
from deeprank.model.backbone import create_backbone
from deeprank.model.network import EmbeddingNet, LowResolution, NetworkSettings, Projection, SearchNet, create_network


@pytest.fixture(scope="module")
def net(network: NetworkSettings) -> EmbeddingNet:
    torch.manual_seed(0)
    return EmbeddingNet(network).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_embeddings_are_float32_of_unit_length(net: EmbeddingNet, images: torch.Tensor) -> None:
    found = net(images)
    assert (found.shape, found.dtype, net.dimensions) == ((5, 16), torch.float32, 16)
    assert torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-6)


def test_negative_coordinates_and_their_gradients_survive(net: EmbeddingNet, images: torch.Tensor) -> None:
    found = net(images)
    assert 0.2 < (found < 0).float().mean() < 0.8
    towards = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    weight = net.head.weight
    (gradient,) = torch.autograd.grad((found * towards).sum(), weight)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_bytes_and_floats_of_the_same_pixels_are_the_same_photograph(net: EmbeddingNet, images: torch.Tensor) -> None:
    assert torch.equal(net(images), net(images.float()))


def test_pixels_are_normalised_with_the_backbones_mean_and_deviation(network: NetworkSettings, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    backbone, mean, std = create_backbone(network.backbone, network.weights)
    torch.manual_seed(0)
    net = EmbeddingNet(network)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))
    expected = torch.nn.functional.normalize(net.head(backbone.eval()((images / 255 - mean) / std)), dim=1)
    assert torch.allclose(net(images), expected, atol=1e-4)


def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(net: EmbeddingNet, images: torch.Tensor) -> None:
    together = net(images)
    for i in range(len(images)):
        assert torch.allclose(net(images[i : i + 1])[0], together[i], atol=1e-5)


def test_photographs_of_any_size_can_be_embedded(net: EmbeddingNet) -> None:
    assert net(torch.zeros(1, 3, 96, 80, dtype=torch.uint8)).shape == (1, 16)


def test_no_dimensions_keep_the_convnets_own_features(network: NetworkSettings, images: torch.Tensor) -> None:
    net = EmbeddingNet(network.model_copy(update={"dimensions": 0})).eval()
    assert net.dimensions == net.width
    assert net(images).shape == (5, net.dimensions)
    assert not list(net.head.parameters())


def test_stages_that_keep_their_weights_stand_below_and_get_no_gradient(network: NetworkSettings, images: torch.Tensor) -> None:
    net = EmbeddingNet(network.model_copy(update={"frozen_stages": 2}))
    net(images).sum().backward()
    assert all(parameter.grad is None for parameter in net.lower.parameters())
    assert all(parameter.grad is not None for parameter in net.upper.parameters())


def test_freezing_everything_is_refused(network: NetworkSettings) -> None:
    with pytest.raises(ConfigError, match="frozen_stages: 99 leaves nothing to learn: test_efficientnet has 10 stages"):
        EmbeddingNet(network.model_copy(update={"frozen_stages": 99}))


def test_the_low_resolution_branches_have_the_papers_shapes() -> None:
    branches = LowResolution()
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
    settings = NetworkSettings(
        backbone=backbone, weights="none", dimensions=8, multiscale=True, hidden=(24, 12), dropout=0.6, frozen_stages=0, general=0
    )
    net = EmbeddingNet(settings)
    images = torch.randint(0, 256, (3, 3, 160, 160), dtype=torch.uint8)
    assert net(images).shape == (3, 8)
    net.train()
    net(images).sum().backward()
    assert all(p.grad is not None for p in [*net.low_resolution.parameters(), *net.hidden.parameters(), *net.head.parameters()])
    assert not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))


def test_the_search_net_puts_what_was_known_beside_what_was_learnt(network: NetworkSettings, images: torch.Tensor) -> None:
    net = create_network(network.model_copy(update={"general": 0.4})).eval()
    assert isinstance(net, SearchNet)
    found = net(images)
    assert found.shape == (5, net.dimensions)
    parts = found.split([16, 192, 192], dim=1)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert torch.allclose(part.square().sum(1), torch.full((5,), share), atol=1e-5)
    assert torch.allclose(parts[0], 0.6**0.5 * net.tuned(images), atol=1e-6)
    # Before training both copies are one net.
    assert torch.allclose(parts[1], parts[2], atol=1e-6)
    with torch.no_grad():
        next(net.tuned.upper.parameters()).mul_(3)
    assert torch.equal(net(images).split([16, 192, 192], dim=1)[1], parts[1])


def test_general_features_are_centred_on_the_photographs_given(network: NetworkSettings, images: torch.Tensor) -> None:
    net = create_network(network.model_copy(update={"general": 0.4})).eval()
    net.centre([images[:3], images[3:]])
    features = torch.nn.functional.normalize(net.tuned.upper(net.tuned.lower(net.tuned.pixels(images))))
    assert torch.allclose(net.before.centre, features.mean(0), atol=1e-6)
    assert torch.allclose(net.after.centre, features.mean(0), atol=1e-6)


def test_a_projection_keeps_angles() -> None:
    points = torch.nn.functional.normalize(torch.randn(40, 1280, generator=torch.Generator().manual_seed(0)))
    found = Projection(1280)(points)
    assert found.shape == (40, 192)
    assert (found @ found.T - points @ points.T).abs().max() < 0.35
    assert torch.allclose(Projection(50)(points[:, :50] / points[:, :50].norm(dim=1, keepdim=True)).norm(dim=1), torch.ones(40))


def test_without_general_features_the_trained_net_searches(network: NetworkSettings) -> None:
    assert isinstance(create_network(network.model_copy(update={"general": 0})), EmbeddingNet)


@pytest.mark.parametrize("backbone", ["vit_small_patch14_dinov2", "inception_v3"])
def test_nets_that_dislike_small_or_odd_sizes_embed_too(backbone: str) -> None:
    net = EmbeddingNet(NetworkSettings(backbone=backbone, weights="none", dimensions=8, frozen_stages=0)).eval()
    assert net(torch.zeros(1, 3, 160, 160, dtype=torch.uint8)).shape == (1, 8)

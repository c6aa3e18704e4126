"""The embedding net: unit length, every coordinate free, nothing dependent on the rest of the batch."""

import pytest
import torch

from deeprank.model.network import EmbeddingNet, NetworkSettings


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


def test_pixels_are_normalised_with_the_backbones_mean_and_deviation(net: EmbeddingNet, images: torch.Tensor) -> None:
    mean, std = (torch.tensor(net.backbone.default_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    features = net.backbone((images / 255 - mean) / std)
    expected = torch.nn.functional.normalize(net.head(features), dim=1)
    assert torch.allclose(net(images), expected, atol=1e-5)


def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(net: EmbeddingNet, images: torch.Tensor) -> None:
    together = net(images)
    for i in range(len(images)):
        assert torch.allclose(net(images[i : i + 1])[0], together[i], atol=1e-5)


def test_photographs_of_any_size_can_be_embedded(net: EmbeddingNet) -> None:
    assert net(torch.zeros(1, 3, 96, 80, dtype=torch.uint8)).shape == (1, 16)


def test_no_dimensions_keep_the_convnets_own_features(network: NetworkSettings, images: torch.Tensor) -> None:
    net = EmbeddingNet(network.model_copy(update={"dimensions": 0})).eval()
    assert net.dimensions == net.backbone.num_features
    assert net(images).shape == (5, net.dimensions)
    assert not list(net.head.parameters())

"""The precision of each phase of a training: chosen by measurement, or by a word."""

import logging

import pytest
import torch

from deeprank.model.network import EmbeddingNet, NetworkSettings
from deeprank.training.precision import InferenceNet, Precision, TrainingNet, choose

FP32, BF16 = Precision(False, False, False), Precision(True, True, True)


@pytest.fixture
def net() -> EmbeddingNet:
    torch.manual_seed(0)
    return EmbeddingNet(NetworkSettings(backbone="test_efficientnet", weights="none", dimensions=8, frozen_stages=2))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_word_decides(net: EmbeddingNet) -> None:
    assert choose("fp32", net, 64) == FP32
    assert choose("bf16", net, 64) == BF16


def test_a_measurement_decides_says_why_and_leaves_no_gradient(net: EmbeddingNet, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = choose("auto", net, 64)
    assert isinstance(found, Precision)
    assert "bfloat16 against fp32" in caplog.text
    assert all(parameter.grad is None for parameter in net.parameters())


def test_what_is_faster_by_a_fifth_is_chosen(net: EmbeddingNet, monkeypatch: pytest.MonkeyPatch) -> None:
    gains = iter([1.9, 0.7, 1.21])
    monkeypatch.setattr("deeprank.training.precision._gain", lambda *_: next(gains))
    assert choose("auto", net, 64) == Precision(frozen=True, training=False, inference=True)


@pytest.mark.parametrize("frozen_stages", [0, 8])
def test_nothing_frozen_and_the_head_alone_can_be_measured(frozen_stages: int) -> None:
    settings = NetworkSettings(backbone="test_efficientnet", weights="none", dimensions=8, frozen_stages=frozen_stages)
    net = EmbeddingNet(settings)
    assert any(parameter.requires_grad for parameter in net.upper.parameters()) == (frozen_stages == 0)
    found = choose("auto", net, 64)
    assert frozen_stages or not found.frozen


def test_learning_embeds_as_the_net_does_and_leaves_the_frozen_stages_without_gradient(net: EmbeddingNet, images: torch.Tensor) -> None:
    found = TrainingNet(net, FP32)(images)
    assert torch.allclose(found, net(images), atol=1e-6)
    found.sum().backward()
    assert all(parameter.grad is None for parameter in net.lower.parameters())
    assert all(parameter.grad is not None for parameter in net.upper.parameters())


def test_half_precision_is_near_and_ends_in_float32(net: EmbeddingNet, images: torch.Tensor) -> None:
    for embedder in (TrainingNet(net, BF16), InferenceNet(net, BF16)):
        found = embedder(images)
        assert found.dtype == torch.float32
        assert not torch.equal(found, net(images))
        assert (found * net(images)).sum(1).min() > 0.98


def test_a_batch_divided_among_devices_gives_the_embeddings_of_the_whole(net: EmbeddingNet, images: torch.Tensor) -> None:
    training = TrainingNet(net, FP32)
    assert torch.allclose(torch.cat([training(images[:2]), training(images[2:])]), training(images), atol=1e-6)

"""The precision of each phase of a training: chosen by measurement, or by a word."""

import logging

import pytest
import torch

from deeprank.models.embedding_model import EmbeddingModel, ModelSettings
from deeprank.training.precision import InferenceModel, Precision, TrainingModel, choose

FP32, BF16 = Precision(False, False, False), Precision(True, True, True)


@pytest.fixture
def model() -> EmbeddingModel:
    torch.manual_seed(0)
    return EmbeddingModel(ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=8, frozen_stages=2))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_word_decides(model: EmbeddingModel) -> None:
    assert choose("fp32", model, 64) == FP32
    assert choose("bf16", model, 64) == BF16


def test_a_measurement_decides_says_why_and_leaves_no_gradient(model: EmbeddingModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = choose("auto", model, 64)
    assert isinstance(found, Precision)
    assert "bfloat16 against fp32" in caplog.text
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_faster_by_a_fifth_is_chosen(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gains = iter([1.9, 0.7, 1.21])
    monkeypatch.setattr("deeprank.training.precision._gain", lambda *_: next(gains))
    assert choose("auto", model, 64) == Precision(frozen=True, training=False, inference=True)


@pytest.mark.parametrize("frozen_stages", [0, 8])
def test_nothing_frozen_and_the_head_alone_can_be_measured(frozen_stages: int) -> None:
    settings = ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=8, frozen_stages=frozen_stages)
    model = EmbeddingModel(settings)
    assert any(parameter.requires_grad for parameter in model.upper.parameters()) == (frozen_stages == 0)
    found = choose("auto", model, 64)
    assert frozen_stages or not found.frozen


def test_learning_embeds_as_the_net_does_and_leaves_the_frozen_stages_without_gradient(model: EmbeddingModel, images: torch.Tensor) -> None:
    found = TrainingModel(model, FP32)(images)
    assert torch.allclose(found, model(images), atol=1e-6)
    found.sum().backward()
    assert all(parameter.grad is None for parameter in model.lower.parameters())
    assert all(parameter.grad is not None for parameter in model.upper.parameters())


def test_half_precision_is_near_and_ends_in_float32(model: EmbeddingModel, images: torch.Tensor) -> None:
    for embedder in (TrainingModel(model, BF16), InferenceModel(model, BF16)):
        found = embedder(images)
        assert found.dtype == torch.float32
        assert not torch.equal(found, model(images))
        assert (found * model(images)).sum(1).min() > 0.98


def test_a_batch_divided_among_devices_gives_the_embeddings_of_the_whole(model: EmbeddingModel, images: torch.Tensor) -> None:
    training = TrainingModel(model, FP32)
    assert torch.allclose(torch.cat([training(images[:2]), training(images[2:])]), training(images), atol=1e-6)

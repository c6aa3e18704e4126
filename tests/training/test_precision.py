"""The precision of each phase of a training: by a setting, or by a measurement."""

import logging

import pytest
import torch

from deeprank.models.embedding_model import EmbeddingModel, ModelSettings
from deeprank.training.precision import InferenceModel, Precision, TrainingModel, select_precision

FP32, BF16 = Precision(False, False, False), Precision(True, True, True)


@pytest.fixture
def model() -> EmbeddingModel:
    torch.manual_seed(0)
    return EmbeddingModel(ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=8, frozen_stages=2))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_setting_selects_the_precision_of_all_phases(model: EmbeddingModel) -> None:
    assert select_precision("fp32", model, 64) == FP32
    assert select_precision("bf16", model, 64) == BF16


def test_auto_measures_logs_and_leaves_no_gradient(model: EmbeddingModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        precision = select_precision("auto", model, 64)
    assert isinstance(precision, Precision)
    assert "speed in bfloat16 relative to float32" in caplog.text
    assert all(parameter.grad is None for parameter in model.parameters())


def test_auto_selects_what_is_faster_by_a_fifth(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    speedups = iter([1.9, 0.7, 1.21])
    monkeypatch.setattr("deeprank.training.precision._measure_speedup", lambda *_: next(speedups))
    assert select_precision("auto", model, 64) == Precision(frozen=True, training=False, inference=True)


@pytest.mark.parametrize("frozen_stages", [0, 8])
def test_auto_works_with_no_and_with_all_stages_frozen(frozen_stages: int) -> None:
    settings = ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=8, frozen_stages=frozen_stages)
    model = EmbeddingModel(settings)
    assert any(parameter.requires_grad for parameter in model.trainable.parameters()) == (frozen_stages == 0)
    precision = select_precision("auto", model, 64)
    assert frozen_stages or not precision.frozen


def test_the_training_model_embeds_as_the_model_does(model: EmbeddingModel, images: torch.Tensor) -> None:
    embeddings = TrainingModel(model, FP32)(images)
    assert torch.allclose(embeddings, model(images), atol=1e-6)
    embeddings.sum().backward()
    assert all(parameter.grad is None for parameter in model.frozen.parameters())
    assert all(parameter.grad is not None for parameter in model.trainable.parameters())


def test_bf16_embeddings_are_close_and_float32(model: EmbeddingModel, images: torch.Tensor) -> None:
    for embedder in (TrainingModel(model, BF16), InferenceModel(model, BF16)):
        embeddings = embedder(images)
        assert embeddings.dtype == torch.float32
        assert not torch.equal(embeddings, model(images))
        assert (embeddings * model(images)).sum(1).min() > 0.98


def test_a_divided_batch_has_the_same_embeddings(model: EmbeddingModel, images: torch.Tensor) -> None:
    training = TrainingModel(model, FP32)
    assert torch.allclose(torch.cat([training(images[:2]), training(images[2:])]), training(images), atol=1e-6)

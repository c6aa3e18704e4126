"""The callbacks of a training."""

import pytest
import torch
from torch.nn.functional import normalize

from deeprank.errors import TrainingError
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings
from deeprank.training.callbacks import WeightAveraging, check_embeddings


def test_a_collapsed_embedding_is_reported_with_advice() -> None:
    embeddings = normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    check_embeddings(embeddings, torch.tensor(1.0), 1, 1)
    with pytest.raises(TrainingError, match=r"epoch 3, step 11: the embedding has collapsed.*learning_rate"):
        check_embeddings(embeddings[:1].repeat(8, 1), torch.tensor(1.0), 3, 11)


def test_the_average_agrees_with_a_loop(model_settings: ModelSettings) -> None:
    model = EmbeddingModel(model_settings)
    averaging = WeightAveraging(model, decay=0.5)
    assert averaging.average is not model
    expected = torch.zeros(())
    for step in range(20):
        with torch.no_grad():
            model.head.bias.fill_(step)
        averaging.on_train_batch_end(None, None, None, None, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = torch.tensor(float(step)) if step == 0 else decay * expected + (1 - decay) * step
        assert torch.allclose(averaging.average.head.bias, expected.expand(16), atol=1e-5)


def test_the_average_is_restored_from_its_state(model_settings: ModelSettings) -> None:
    model = EmbeddingModel(model_settings)
    averaging, restored = WeightAveraging(model, decay=0.5), WeightAveraging(model, decay=0.5)
    for step in range(3):
        with torch.no_grad():
            model.head.bias.fill_(step)
        averaging.on_train_batch_end(None, None, None, None, step)
    restored.load_state_dict(averaging.state_dict())
    for callback in (averaging, restored):
        callback.on_train_batch_end(None, None, None, None, 3)
    assert torch.equal(averaging.average.head.bias, restored.average.head.bias)

"""Initial weights of a training: head and class vectors from the features, or from a trained model."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings, SearchModel
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import Record
from deeprank.training import initialization
from deeprank.training.data import TrainingImages
from deeprank.training.fit import fit, training_key
from deeprank.training.initialization import _sample_of_each_class, init_from_bundle, init_head_from_pca
from deeprank.training.losses import LossSettings, WeightedLosses
from deeprank.training.precision import Precision
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import Triplets
from tests.conftest import TINY

FP32 = Precision(frozen=False, training=False, inference=False)

SOFTMAX = LossSettings(name="CosineSoftmax")


def _images(catalogue: Catalogue, rows: np.ndarray) -> TrainingImages:
    classes = np.unique(catalogue.frame["label"].iloc[rows], return_inverse=True)[1]
    return TrainingImages(rows, classes, np.empty((0, 3), dtype=np.int64), np.arange(6)[:, None])


def _initialized(catalogue: Catalogue, settings: ModelSettings) -> tuple[EmbeddingModel, WeightedLosses, torch.Tensor, np.ndarray]:
    """Return model and losses with a PCA head, the random head before it, and the classes."""
    torch.manual_seed(0)
    model, loss = (
        EmbeddingModel(settings),
        WeightedLosses((SOFTMAX,), torch.arange(6)[:, None], settings.embedding_dim),
    )
    random_head = model.head.weight.detach().clone()
    images = _images(catalogue, np.arange(len(catalogue.frame)))
    init_head_from_pca(model, loss, catalogue, images, 64, FP32)
    return model, loss, random_head, images.classes


def _separation(embeddings: np.ndarray, classes: np.ndarray) -> float:
    similarity = embeddings @ embeddings.T
    same = classes[:, None] == classes
    return float(similarity[same & ~np.eye(len(embeddings), dtype=bool)].mean() - similarity[~same].mean())


def test_the_pca_head_separates_classes(catalogue: Catalogue) -> None:
    model, loss, random_head, classes = _initialized(catalogue, ModelSettings(embedding_dim=24))
    rows = np.arange(len(catalogue.frame))
    embeddings = embed_catalogue(model, Preprocessing(size=64), catalogue, rows)
    with torch.no_grad():
        model.head.weight.copy_(random_head)
        model.head.bias.zero_()
    random_embeddings = embed_catalogue(model, Preprocessing(size=64), catalogue, rows)
    assert _separation(embeddings, classes) > 1.5 * _separation(random_embeddings, classes)
    assert np.allclose(np.abs(embeddings.mean(0)).max(), 0, atol=0.1)
    centers = np.stack([embeddings[classes == value].mean(0) for value in range(6)])
    expected = normalize(torch.from_numpy(centers), dim=1)
    assert torch.allclose(normalize(loss.losses[0].proxies.detach(), dim=1), expected, atol=1e-4)


def test_dimensions_beyond_the_images_stay_random(catalogue: Catalogue) -> None:
    model, _, random_head, _ = _initialized(catalogue, ModelSettings(embedding_dim=60))
    remaining = slice(len(catalogue.frame) - 1, None)
    assert torch.equal(model.head.weight[remaining], random_head[remaining] / 10)
    embeddings = embed_catalogue(model, Preprocessing(size=64), catalogue, np.arange(len(catalogue.frame)))[:, remaining]
    # Centered, except for the scaling to unit length.
    assert np.abs(embeddings.mean(0)).max() < embeddings.std() / 3


def test_no_direction_dominates_with_few_images(catalogue: Catalogue) -> None:
    rows = np.arange(0, len(catalogue.frame), 2)
    model, loss = (
        EmbeddingModel(ModelSettings(embedding_dim=30)),
        WeightedLosses((SOFTMAX,), torch.arange(6)[:, None], 30),
    )
    assert len(rows) < 30
    init_head_from_pca(model, loss, catalogue, _images(catalogue, rows), 64, FP32)
    embeddings = embed_catalogue(model, Preprocessing(size=64), catalogue, rows + 1)
    assert (embeddings**2).mean(0).max() < 0.3


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(embedding_dim=16, hidden_dims=(24,)),
        ModelSettings(embedding_dim=16, multiscale=True),
    ],
    ids=["hidden layers", "low-resolution branches"],
)
def test_a_head_on_other_inputs_stays_random(catalogue: Catalogue, settings: ModelSettings) -> None:
    model, _, random_head, _ = _initialized(catalogue, settings)
    assert torch.equal(model.head.weight, random_head)


TRAIN = TrainSettings(
    model=TINY.model_copy(update={"pretrained_share": 0.4}),
    precision="fp32",
    epochs=1,
    train_image_sizes=(32,),
    eval_image_size=32,
    classes_per_batch=3,
    images_per_class=2,
)
# With these learning rates the weights stay where they are.
NO_CHANGE = TRAIN.model_copy(update={"learning_rate": 1e-12, "head_learning_rate": 1e-12, "weight_decay": 0, "ema_decay": 0})


def _weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    return bundle.load()[0].state_dict()


@pytest.fixture(scope="module")
def champion(catalogue: Catalogue, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("champion")
    return fit(catalogue, triplets, TRAIN, folder, Record(folder / "record"))


def test_init_from_a_bundle_loads_its_trained_weights(catalogue: Catalogue, triplets: Triplets, champion: Bundle, tmp_path: Path) -> None:
    from_champion = fit(catalogue, triplets, NO_CHANGE, tmp_path / "a", Record(tmp_path / "r1"), init_bundle=champion)
    from_pretrained = fit(catalogue, triplets, NO_CHANGE, tmp_path / "b", Record(tmp_path / "r2"))
    before, continued, restarted = _weights(champion), _weights(from_champion), _weights(from_pretrained)
    finetuned = [name for name in before if name.startswith("finetuned.")]
    for name in finetuned:
        assert torch.allclose(continued[name], before[name], atol=1e-7), name
    changed = [name for name in finetuned if not torch.equal(restarted[name], before[name])]
    assert {name.split(".")[1] for name in changed} == {"trainable", "head"}
    # The pretrained weights are the same in all three.
    for name in before.keys() - set(finetuned):
        if name.startswith("pretrained."):
            assert torch.equal(continued[name], restarted[name]), name
    assert (from_champion.facts["init"], from_pretrained.facts["init"]) == (champion.weights_hash, "pretrained")


def test_init_from_a_bundle_sets_class_vectors(catalogue: Catalogue, champion: Bundle) -> None:
    model = EmbeddingModel(TRAIN.model)
    loss = WeightedLosses((SOFTMAX,), torch.arange(6)[:, None], TRAIN.model.embedding_dim)
    images = _images(catalogue, np.arange(len(catalogue.frame)))
    init_from_bundle(model, TRAIN.model, champion, loss, catalogue, images, 64, FP32)
    trained = champion.load()[0]
    assert isinstance(trained, SearchModel)
    embeddings = embed_catalogue(copy.deepcopy(trained.finetuned), Preprocessing(size=64), catalogue, images.rows)
    classes = images.classes
    centers = np.stack([embeddings[classes == value].mean(0) for value in range(6)])
    expected = normalize(torch.from_numpy(centers), dim=1)
    assert torch.allclose(normalize(loss.losses[0].proxies.detach(), dim=1), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"embedding_dim": 8}, "embedding_dim is 8, in the bundle 16"), ({"frozen_stages": 1}, "frozen_stages is 1, in the bundle 0")],
)
def test_init_from_another_architecture_is_refused(
    catalogue: Catalogue, triplets: Triplets, champion: Bundle, tmp_path: Path, changed: dict[str, int], message: str
) -> None:
    settings = TRAIN.model_copy(update={"model": TRAIN.model.model_copy(update=changed)})
    with pytest.raises(ModelError, match=f"{message}; train once with init: pretrained"):
        fit(catalogue, triplets, settings, tmp_path, Record(tmp_path / "record"), init_bundle=champion)


def test_a_training_from_a_bundle_is_resumed(catalogue: Catalogue, triplets: Triplets, champion: Bundle, tmp_path: Path) -> None:
    class InterruptedRecord(Record):
        def metric(self, name: str, value: float, step: int | None = None) -> None:
            if step == 2:
                raise RuntimeError("interrupted")
            super().metric(name, value, step)

    settings, checkpoints = TRAIN.model_copy(update={"epochs": 2}), tmp_path / "checkpoints"
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(catalogue, triplets, settings, tmp_path / "a", InterruptedRecord(tmp_path / "r1"), checkpoints, champion)
    assert [file.stem for file in checkpoints.iterdir()] == [training_key(triplets, settings, champion)]
    assert training_key(triplets, settings) != training_key(triplets, settings, champion)
    resumed = fit(catalogue, triplets, settings, tmp_path / "a", Record(tmp_path / "r2"), checkpoints, champion)
    uninterrupted = fit(catalogue, triplets, settings, tmp_path / "b", Record(tmp_path / "r3"), init_bundle=champion)
    assert resumed.weights_hash == uninterrupted.weights_hash


def test_a_large_training_starts_from_a_sample_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 30, 1]))
    assert _sample_of_each_class(classes).tolist() == list(range(81))
    monkeypatch.setattr(initialization, "MAX_SAMPLE", 20)
    sample = _sample_of_each_class(classes)
    assert sample.tolist() == sorted(set(sample))
    assert np.bincount(classes[sample]).tolist() == [10, 6, 1]

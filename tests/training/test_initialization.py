"""Where a training starts: head and class vectors from what the features already tell, or a net that was trained before."""

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
from deeprank.training.fit import TrainSettings, fit, training_key
from deeprank.training.initialization import init_from_bundle, init_head_from_pca
from deeprank.training.losses import LossSettings, WeightedLosses
from deeprank.training.precision import Precision
from deeprank.triplets.sampling import Triplets
from tests.conftest import TINY

FP32 = Precision(frozen=False, training=False, inference=False)


def _started(catalogue: Catalogue, settings: ModelSettings) -> tuple[EmbeddingModel, WeightedLosses, torch.Tensor, np.ndarray]:
    torch.manual_seed(0)
    model, loss = EmbeddingModel(settings), WeightedLosses((LossSettings(name="CosineSoftmax"),), torch.eye(6), settings.embedding_dim)
    before = model.head.weight.detach().clone()
    rows = np.arange(len(catalogue.frame))
    classes = np.unique(catalogue.frame["label"], return_inverse=True)[1]
    init_head_from_pca(model, loss, catalogue, rows, classes, 64, FP32)
    return model, loss, before, classes


def _spread(found: np.ndarray, classes: np.ndarray) -> float:
    similar = found @ found.T
    same = classes[:, None] == classes
    return float(similar[same & ~np.eye(len(found), dtype=bool)].mean() - similar[~same].mean())


def test_classes_are_apart_before_the_first_step_and_each_class_vector_is_in_its_middle(catalogue: Catalogue) -> None:
    model, loss, before, classes = _started(catalogue, ModelSettings(embedding_dim=24))
    rows = np.arange(len(catalogue.frame))
    found = embed_catalogue(model, Preprocessing(size=64), catalogue, rows)
    with torch.no_grad():
        model.head.weight.copy_(before)
        model.head.bias.zero_()
    random = embed_catalogue(model, Preprocessing(size=64), catalogue, rows)
    assert _spread(found, classes) > 1.5 * _spread(random, classes)
    assert np.allclose(np.abs(found.mean(0)).max(), 0, atol=0.1)
    middles = np.stack([found[classes == value].mean(0) for value in range(6)])
    expected = normalize(torch.from_numpy(middles), dim=1)
    assert torch.allclose(normalize(loss.losses[0].proxies.detach(), dim=1), expected, atol=1e-4)


def test_more_dimensions_than_images_keep_the_rest_of_the_random_head(catalogue: Catalogue) -> None:
    model, _, before, _ = _started(catalogue, ModelSettings(embedding_dim=60))
    rest = slice(len(catalogue.frame) - 1, None)
    assert torch.equal(model.head.weight[rest], before[rest] / 10)
    found = embed_catalogue(model, Preprocessing(size=64), catalogue, np.arange(len(catalogue.frame)))[:, rest]
    # Centered, but for what unit length does.
    assert np.abs(found.mean(0)).max() < found.std() / 3


def test_no_direction_drowns_the_others_where_images_are_few(catalogue: Catalogue) -> None:
    known = np.arange(0, len(catalogue.frame), 2)
    model, loss = EmbeddingModel(ModelSettings(embedding_dim=30)), WeightedLosses((LossSettings(name="CosineSoftmax"),), torch.eye(6), 30)
    classes = np.unique(catalogue.frame["label"].iloc[known], return_inverse=True)[1]
    assert len(known) < 30
    init_head_from_pca(model, loss, catalogue, known, classes, 64, FP32)
    found = embed_catalogue(model, Preprocessing(size=64), catalogue, known + 1)
    assert (found**2).mean(0).max() < 0.3


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(embedding_dim=16, hidden_dims=(24,)),
        ModelSettings(embedding_dim=16, multiscale=True),
    ],
    ids=["hidden layers", "other branches"],
)
def test_a_head_that_does_not_stand_on_the_convnet_starts_at_random(catalogue: Catalogue, settings: ModelSettings) -> None:
    model, _, before, _ = _started(catalogue, settings)
    assert torch.equal(model.head.weight, before)


TRAIN = TrainSettings(
    model=TINY.model_copy(update={"pretrained_share": 0.4}),
    precision="fp32",
    epochs=1,
    train_image_sizes=(32,),
    eval_image_size=32,
    classes_per_batch=3,
    images_per_class=2,
)
# So small a rate that the weights stay where they are.
STILL = TRAIN.model_copy(update={"learning_rate": 1e-12, "head_learning_rate": 1e-12, "weight_decay": 0, "average": 0})


def _weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    return bundle.load()[0].state_dict()


@pytest.fixture(scope="module")
def champion(catalogue: Catalogue, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("champion")
    return fit(catalogue, triplets, TRAIN, folder, Record(folder / "record"))


def test_a_warm_start_goes_on_from_the_trained_weights_beside_the_ones_from_before(
    catalogue: Catalogue, triplets: Triplets, champion: Bundle, tmp_path: Path
) -> None:
    went_on = fit(catalogue, triplets, STILL, tmp_path / "warm", Record(tmp_path / "r1"), start=champion)
    anew = fit(catalogue, triplets, STILL, tmp_path / "cold", Record(tmp_path / "r2"))
    before, warm, cold = _weights(champion), _weights(went_on), _weights(anew)
    tuned = [name for name in before if name.startswith("tuned.")]
    for name in tuned:
        assert torch.allclose(warm[name], before[name], atol=1e-7), name
    moved = [name for name in tuned if not torch.equal(cold[name], before[name])]
    assert {name.split(".")[1] for name in moved} == {"upper", "head"}
    # The features that were never trained are the same in all three.
    for name in before.keys() - tuned:
        if name.startswith("original."):
            assert torch.equal(warm[name], cold[name]), name
    assert (went_on.facts["start"], anew.facts["start"]) == (champion.weights_hash, "scratch")


def test_class_vectors_of_a_warm_start_are_in_the_middle_of_its_own_embeddings(catalogue: Catalogue, champion: Bundle) -> None:
    model = EmbeddingModel(TRAIN.model)
    loss = WeightedLosses((LossSettings(name="CosineSoftmax"),), torch.eye(6), TRAIN.model.embedding_dim)
    rows, classes = np.arange(len(catalogue.frame)), np.unique(catalogue.frame["label"], return_inverse=True)[1]
    init_from_bundle(model, TRAIN.model, champion, loss, catalogue, rows, classes, 64, FP32)
    trained = champion.load()[0]
    assert isinstance(trained, SearchModel)
    found = embed_catalogue(copy.deepcopy(trained.tuned), Preprocessing(size=64), catalogue, rows)
    middles = np.stack([found[classes == value].mean(0) for value in range(6)])
    expected = normalize(torch.from_numpy(middles), dim=1)
    assert torch.allclose(normalize(loss.losses[0].proxies.detach(), dim=1), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "told"), [({"embedding_dim": 8}, "embedding_dim 16, now 8"), ({"frozen_stages": 1}, "frozen_stages 0, now 1")]
)
def test_another_network_is_no_start(
    catalogue: Catalogue, triplets: Triplets, champion: Bundle, tmp_path: Path, changed: dict[str, int], told: str
) -> None:
    settings = TRAIN.model_copy(update={"model": TRAIN.model.model_copy(update=changed)})
    with pytest.raises(ModelError, match=f"{told}; start from scratch once"):
        fit(catalogue, triplets, settings, tmp_path, Record(tmp_path / "record"), start=champion)


def test_a_training_that_was_broken_off_goes_on_with_the_same_start_only(
    catalogue: Catalogue, triplets: Triplets, champion: Bundle, tmp_path: Path
) -> None:
    class Broken(Record):
        def metric(self, name: str, value: float, step: int | None = None) -> None:
            if step == 2:
                raise RuntimeError("broken off")
            super().metric(name, value, step)

    settings, checkpoints = TRAIN.model_copy(update={"epochs": 2}), tmp_path / "checkpoints"
    with pytest.raises(RuntimeError, match="broken off"):
        fit(catalogue, triplets, settings, tmp_path / "a", Broken(tmp_path / "r1"), checkpoints, champion)
    assert [file.stem for file in checkpoints.iterdir()] == [training_key(triplets, settings, champion)]
    assert training_key(triplets, settings) != training_key(triplets, settings, champion)
    resumed = fit(catalogue, triplets, settings, tmp_path / "a", Record(tmp_path / "r2"), checkpoints, champion)
    unbroken = fit(catalogue, triplets, settings, tmp_path / "b", Record(tmp_path / "r3"), start=champion)
    assert resumed.weights_hash == unbroken.weights_hash

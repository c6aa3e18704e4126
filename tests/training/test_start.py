"""Where a training starts: head and class vectors from what the features already tell."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from deeprank.data.catalogue import Catalogue
from deeprank.model.embedding import embed_catalogue
from deeprank.model.network import EmbeddingNet, NetworkSettings
from deeprank.model.preprocessing import Preprocessing
from deeprank.training.losses import LossSettings, WeightedLosses
from deeprank.training.precision import Precision
from deeprank.training.start import start_from_features

FP32 = Precision(frozen=False, training=False, inference=False)


def _started(catalogue: Catalogue, settings: NetworkSettings) -> tuple[EmbeddingNet, WeightedLosses, torch.Tensor, np.ndarray]:
    torch.manual_seed(0)
    net, loss = EmbeddingNet(settings), WeightedLosses((LossSettings(name="CosineSoftmax"),), torch.eye(6), settings.dimensions)
    before = net.head.weight.detach().clone()
    rows = np.arange(len(catalogue.frame))
    classes = np.unique(catalogue.frame["label"], return_inverse=True)[1]
    start_from_features(net, loss, catalogue, rows, classes, 64, FP32)
    return net, loss, before, classes


def _spread(found: np.ndarray, classes: np.ndarray) -> float:
    similar = found @ found.T
    same = classes[:, None] == classes
    return float(similar[same & ~np.eye(len(found), dtype=bool)].mean() - similar[~same].mean())


def test_classes_are_apart_before_the_first_step_and_each_class_vector_is_in_its_middle(catalogue: Catalogue) -> None:
    net, loss, before, classes = _started(catalogue, NetworkSettings(dimensions=24))
    rows = np.arange(len(catalogue.frame))
    found = embed_catalogue(net, Preprocessing(size=64), catalogue, rows)
    with torch.no_grad():
        net.head.weight.copy_(before)
        net.head.bias.zero_()
    random = embed_catalogue(net, Preprocessing(size=64), catalogue, rows)
    assert _spread(found, classes) > 1.5 * _spread(random, classes)
    assert np.allclose(np.abs(found.mean(0)).max(), 0, atol=0.1)
    middles = np.stack([found[classes == value].mean(0) for value in range(6)])
    expected = normalize(torch.from_numpy(middles), dim=1)
    assert torch.allclose(normalize(loss.losses[0].proxies.detach(), dim=1), expected, atol=1e-4)


def test_more_dimensions_than_photographs_keep_the_rest_of_the_random_head(catalogue: Catalogue) -> None:
    net, _, before, _ = _started(catalogue, NetworkSettings(dimensions=60))
    changed = (net.head.weight != before).any(dim=1)
    assert changed[: len(catalogue.frame)].all()
    assert not changed[len(catalogue.frame) :].any()


@pytest.mark.parametrize(
    "settings",
    [
        NetworkSettings(dimensions=16, hidden=(24,)),
        NetworkSettings(dimensions=16, multiscale=True),
    ],
    ids=["hidden layers", "other branches"],
)
def test_a_head_that_does_not_stand_on_the_convnet_starts_at_random(catalogue: Catalogue, settings: NetworkSettings) -> None:
    net, _, before, _ = _started(catalogue, settings)
    assert torch.equal(net.head.weight, before)

"""The scale of familiarity: train images are at 1, images of another kind at 0, and it survives saving."""

import torch
from torch.nn.functional import normalize

from deeprank.models.familiarity import NUM_NEIGHBORS, Familiarity


def _around(axis: int, count: int, spread: float, seed: int) -> torch.Tensor:
    noise = torch.randn(count, 64, generator=torch.Generator().manual_seed(seed)) * spread
    noise[:, axis] += 1
    return normalize(noise)


def _fitted() -> Familiarity:
    familiarity = Familiarity(64)
    familiarity.fit(_around(0, 300, 0.1, seed=1))
    return familiarity


def test_images_of_the_same_kind_are_familiar_and_others_are_not() -> None:
    familiarity = _fitted()
    assert familiarity(_around(0, 200, 0.1, seed=2)).mean() > 0.98
    assert familiarity(_around(5, 200, 0.1, seed=3)).max() == 0


def test_familiarity_falls_without_a_step() -> None:
    familiarity = _fitted()
    start, end = _around(0, 1, 0.1, seed=2), _around(5, 1, 0.1, seed=3)
    values = familiarity(normalize(torch.lerp(start, end, torch.linspace(0, 1, 400)[:, None])))
    assert (values[0], values[-1]) == (1, 0)
    assert values.diff().max() <= 0
    assert values.diff().abs().max() < 0.1


def test_raw_value_is_the_mean_cosine_to_the_nearest() -> None:
    familiarity, queries = _fitted(), _around(0, 7, 0.3, seed=4)
    cosines = (queries @ familiarity.reference.T).sort(dim=1, descending=True).values
    assert torch.allclose(familiarity.raw(queries), cosines[:, :NUM_NEIGHBORS].mean(1))


def test_one_percent_of_the_train_images_are_below_1() -> None:
    familiarity = Familiarity(64)
    features = _around(0, 500, 0.1, seed=1)
    familiarity.fit(features)
    raw = (features @ features.T).fill_diagonal_(-1).topk(NUM_NEIGHBORS).values.mean(1)
    assert (raw < familiarity.limits[1]).sum() == 5


def test_equal_images_are_familiar() -> None:
    for seed in range(20):
        familiarity = Familiarity(64)
        features = _around(0, 1, 0.3, seed).repeat(40, 1)
        familiarity.fit(features)
        assert familiarity(features).min() == 1
        assert familiarity(_around(5, 10, 0.1, seed)).max() == 0


def test_fewer_images_than_neighbors_are_enough() -> None:
    for count in (1, 2, 3):
        familiarity, features = Familiarity(64), _around(0, count, 0.1, seed=1)
        familiarity.fit(features)
        assert familiarity(features).min() == 1
    assert familiarity(_around(5, 3, 0.1, seed=1)).max() == 0


def test_the_reference_is_saved_and_loaded() -> None:
    familiarity, loaded = _fitted(), Familiarity(64)
    loaded.load_state_dict(familiarity.state_dict())
    queries = _around(0, 20, 0.3, seed=2)
    assert torch.equal(loaded(queries), familiarity(queries))

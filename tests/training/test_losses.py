"""The ranking hinge against loops over triplets, and losses by name."""

import itertools

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import normalize

from deeprank.errors import ConfigError
from deeprank.training.losses import LossSettings, RankingHinge, WeightedLosses, create_loss


def _points(seed: int, n: int = 9, d: int = 6, spread: float = 1) -> torch.Tensor:
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(noise * spread + torch.eye(d, dtype=torch.float64)[0], dim=1)


def _hinges(embeddings: torch.Tensor, labels: torch.Tensor, gap: float) -> list[torch.Tensor]:
    found = []
    for q, p, n in itertools.permutations(range(len(labels)), 3):
        if labels[q] == labels[p] != labels[n]:
            near, far = ((embeddings[q] - embeddings[i]).square().sum() for i in (p, n))
            found.append((gap + near - far).clamp(min=0))
    return found


@pytest.mark.parametrize("gap", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 0, 1, 0, 1, 0, 1, 0], [0, 0, 1, 2, 3, 4, 5, 6, 7]])
@pytest.mark.parametrize("seed", range(3))
def test_the_hinge_is_the_mean_over_triplets_inside_the_gap(gap: float, labels: list[int], seed: int) -> None:
    embeddings, classes = _points(seed).requires_grad_(), torch.tensor(labels)
    inside = [hinge for hinge in _hinges(embeddings, classes, gap) if hinge > 0]
    expected = torch.stack(inside).mean()
    found = RankingHinge(gap)(embeddings, classes)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    gradients = [torch.autograd.grad(loss, embeddings)[0] for loss in (found, expected)]
    # Both follow the sphere; only the part along it counts.
    along = [g - (g * embeddings).sum(1, keepdim=True) * embeddings for g in gradients]
    assert torch.allclose(*along, atol=1e-10)


def test_one_violator_among_easy_triplets_keeps_its_gradient() -> None:
    # One class at 0 and 50 degrees; of the others, far away in other directions, one sits at 60 degrees.
    degrees = torch.deg2rad(torch.tensor([0.0, 50.0, 60.0], dtype=torch.float64))
    plane = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    embeddings = torch.zeros(10, 9, dtype=torch.float64)
    embeddings[:3, :2] = plane
    embeddings[3:, 2:] = torch.eye(7, dtype=torch.float64)
    embeddings.requires_grad_()
    labels = torch.tensor([0, 0, *range(1, 9)])
    hinges = _hinges(embeddings, labels, gap=0.1)
    violators = [hinge for hinge in hinges if hinge > 0]
    assert len(violators) == 1
    assert len(hinges) - len(violators) >= 7
    # What the seed does: the sum over the batch hides it.
    differences = sum(0.1 + (embeddings[q] - embeddings[p]).square().sum() - (embeddings[q] - embeddings[n]).square().sum()
                      for q, p in ((0, 1), (1, 0)) for n in range(2, 10))  # fmt: skip
    assert differences < 0
    loss = RankingHinge(gap=0.1)(embeddings, labels)
    assert loss.item() == pytest.approx(violators[0].item())
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert (gradient[:3].abs().sum(1) > 0.1).all()
    assert (gradient[3:] == 0).all()


def test_the_gradient_is_finite_at_distance_0() -> None:
    embeddings = normalize(torch.ones(4, 5), dim=1).requires_grad_()
    loss = RankingHinge(0.2)(embeddings, torch.tensor([0, 0, 1, 1]))
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert loss.item() == pytest.approx(0.2, abs=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["one class", "no pair"])
def test_a_batch_without_a_triplet_costs_nothing_and_breaks_nothing(labels: list[int]) -> None:
    embeddings = _points(0, 3).requires_grad_()
    loss = RankingHinge()(embeddings, torch.tensor(labels))
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert loss == 0
    assert (gradient == 0).all()


def test_a_batch_may_have_any_size_and_order() -> None:
    embeddings, labels = _points(1, 7), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    order = torch.tensor([6, 2, 0, 5, 3, 1, 4])
    assert RankingHinge()(embeddings[order], labels[order]) == pytest.approx(RankingHinge()(embeddings, labels).item())


def test_a_loss_of_the_library_is_made_by_name_with_its_arguments() -> None:
    loss = create_loss(LossSettings(name="TripletMarginLoss", arguments={"margin": 0.3}), 5, 16)
    assert type(loss).__name__ == "TripletMarginLoss"
    assert loss.margin == 0.3
    assert create_loss(LossSettings(), 5, 16).temperature == 0.1


def test_the_ranking_hinge_is_made_by_name() -> None:
    loss = create_loss(LossSettings(name="RankingHinge", arguments={"gap": 0.7}), 5, 16)
    assert isinstance(loss, RankingHinge)
    assert loss.gap == 0.7


@pytest.mark.parametrize("name", ["ProxyAnchorLoss", "NormalizedSoftmaxLoss", "ArcFaceLoss", "CosFaceLoss", "SoftTripleLoss"])
def test_a_loss_with_a_vector_a_class_is_told_how_many(name: str) -> None:
    loss = create_loss(LossSettings(name=name, arguments={}), 5, 16)
    assert sum(parameter.numel() for parameter in loss.parameters()) % (5 * 16) == 0
    value = loss(_points(0, 6, 16).float(), torch.tensor([0, 1, 2, 3, 4, 4]))
    assert value.isfinite()


def test_several_losses_are_added_with_their_weights() -> None:
    settings = [LossSettings(weight=0.5), LossSettings(name="RankingHinge", arguments={}, weight=2)]
    embeddings, labels = _points(0).float(), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    supcon, hinge = (create_loss(one, 3, 6)(embeddings, labels).item() for one in settings)
    assert WeightedLosses(settings, 3, 6)(embeddings, labels).item() == pytest.approx(0.5 * supcon + 2 * hinge)
    vectors = WeightedLosses([LossSettings(name="ProxyAnchorLoss", arguments={})], 3, 6)
    assert sum(parameter.numel() for parameter in vectors.parameters()) == 3 * 6


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("SupConLos", "there is no loss SupConLos; nearest: SupConLoss"),
        ("rankinghinge", "nearest: RankingHinge"),
        ("qqq", "there is no loss qqq; there are RankingHinge, "),
        ("BaseMetricLossFunction", "there is no loss BaseMetricLossFunction"),
    ],
)
def test_a_loss_that_does_not_exist_is_refused_with_the_nearest(name: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        LossSettings(name=name)


@pytest.mark.parametrize("name", ["TripletMarginLoss", "RankingHinge"])
def test_arguments_that_a_loss_does_not_take_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"arguments of {name}: .*'margn'"):
        create_loss(LossSettings(name=name, arguments={"margn": 1}), 5, 16)

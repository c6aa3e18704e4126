"""The hinge on squared distances, graded hinge, cosine softmax and memory, against loops and against the library."""

import io
import itertools

import pytest
import torch
from pytorch_metric_learning import losses
from torch.nn.functional import cross_entropy, normalize

from deeprank.training.custom_losses import CosineSoftmax, GradedHinge
from deeprank.training.losses import (
    CUSTOM_LOSSES,
    LABELS_ONLY,
    WITH_MEMORY,
    LossSettings,
    MinerSettings,
    WeightedLosses,
    create_loss,
)
from tests.training.loss_examples import (
    CLASS_CODES,
    HINGE,
    LABELS,
    MINERS,
    RELEVANCES,
    TRIPLETS,
    hinge_settings,
    loss_settings,
    unit_vectors,
    weighted_losses,
)


def _squared_distance(embeddings: torch.Tensor, i: int, j: int) -> torch.Tensor:
    return (embeddings[i] - embeddings[j]).square().sum()


def _hinges(embeddings: torch.Tensor, labels: torch.Tensor, margin: float) -> list[torch.Tensor]:
    triplets = [(q, p, n) for q, p, n in itertools.permutations(range(len(labels)), 3) if labels[q] == labels[p] != labels[n]]
    return [(margin + _squared_distance(embeddings, q, p) - _squared_distance(embeddings, q, n)).clamp(min=0) for q, p, n in triplets]


def _hinge(margin: float, reducer: str = "AvgNonZeroReducer") -> torch.nn.Module:
    return create_loss(hinge_settings(margin, reducer), CLASS_CODES, 6)


def _along_the_sphere(loss: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, embeddings)
    return gradient - (gradient * embeddings).sum(1, keepdim=True) * embeddings


@pytest.mark.parametrize("margin", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 0, 1, 0, 1, 0, 1, 0], [0, 0, 1, 2, 3, 4, 5, 6, 7]])
@pytest.mark.parametrize("seed", range(3))
def test_the_hinge_on_squared_distances_agrees_with_a_loop(margin: float, labels: list[int], seed: int) -> None:
    embeddings, classes = unit_vectors(seed).requires_grad_(), torch.tensor(labels)
    hinges = torch.stack(_hinges(embeddings, classes, margin))
    expected = hinges[hinges > 0].mean()
    loss = _hinge(margin)(embeddings, classes)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(_along_the_sphere(loss, embeddings), _along_the_sphere(expected, embeddings), atol=1e-10)
    assert _hinge(margin, "MeanReducer")(embeddings, classes).item() == pytest.approx(hinges.mean().item(), abs=1e-12)


def test_one_active_triplet_among_easy_ones_has_gradient() -> None:
    # One class is at 0 and 50 degrees, an image of another class at 60 degrees, all others in orthogonal directions.
    degrees = torch.deg2rad(torch.tensor([0.0, 50.0, 60.0], dtype=torch.float64))
    plane = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    embeddings = torch.zeros(10, 9, dtype=torch.float64)
    embeddings[:3, :2] = plane
    embeddings[3:, 2:] = torch.eye(7, dtype=torch.float64)
    embeddings.requires_grad_()
    labels = torch.tensor([0, 0, *range(1, 9)])
    hinges = _hinges(embeddings, labels, margin=0.1)
    active = [hinge for hinge in hinges if hinge > 0]
    assert len(active) == 1
    assert len(hinges) - len(active) >= 7
    # The original Keras scripts take the hinge of the sum over the batch, which is negative here.
    assert (
        sum(
            0.1 + _squared_distance(embeddings, q, p) - _squared_distance(embeddings, q, n)
            for q, p in ((0, 1), (1, 0))
            for n in range(2, 10)
        )
        < 0
    )
    loss = _hinge(margin=0.1)(embeddings, labels)
    assert loss.item() == pytest.approx(active[0].item())
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert (gradient[:3].abs().sum(1) > 0.1).all()
    assert (gradient[3:] == 0).all()


@pytest.mark.parametrize("margin", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_graded_hinge_agrees_with_a_loop(margin: float, seed: int) -> None:
    embeddings, hinges = unit_vectors(seed).requires_grad_(), []
    for q, a, b in itertools.permutations(range(9), 3):
        nearer, farther = RELEVANCES[LABELS[q], LABELS[a]], RELEVANCES[LABELS[q], LABELS[b]]
        if nearer > farther:
            hinges.append(
                (margin * (nearer - farther) + _squared_distance(embeddings, q, a) - _squared_distance(embeddings, q, b)).clamp(min=0)
            )
    expected = torch.stack([hinge for hinge in hinges if hinge > 0]).mean()
    loss = GradedHinge(CLASS_CODES, margin)(embeddings, LABELS)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(_along_the_sphere(loss, embeddings), _along_the_sphere(expected, embeddings), atol=1e-10)


def test_without_grades_the_graded_hinge_is_the_hinge() -> None:
    graded = GradedHinge(torch.arange(3)[:, None], 0.3)
    for triplets in (None, TRIPLETS):
        expected = _hinge(0.3)(unit_vectors(0), LABELS, triplets).item()
        assert graded(unit_vectors(0), LABELS, triplets).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("graded", [False, True])
def test_only_the_given_triplets_count(graded: bool) -> None:
    embeddings, loss = unit_vectors(2), GradedHinge(CLASS_CODES, 0.5) if graded else _hinge(0.5)
    hinges = []
    for q, a, b in zip(*(column.tolist() for column in TRIPLETS), strict=True):
        margin = 0.5 * (RELEVANCES[LABELS[q], LABELS[a]] - RELEVANCES[LABELS[q], LABELS[b]]) if graded else 0.5
        hinges.append((margin + _squared_distance(embeddings, q, a) - _squared_distance(embeddings, q, b)).clamp(min=0))
    active = torch.stack(hinges)[torch.stack(hinges) > 0]
    assert loss(embeddings, LABELS, TRIPLETS).item() == pytest.approx(active.mean().item(), abs=1e-12)
    assert graded or _hinge(0.5, "MeanReducer")(embeddings, LABELS, TRIPLETS).item() == pytest.approx(
        torch.stack(hinges).mean().item(), abs=1e-12
    )
    changed = embeddings.clone()
    changed[5] = -changed[5]
    assert loss(changed, LABELS, TRIPLETS) == loss(embeddings, LABELS, TRIPLETS)
    assert loss(embeddings, LABELS, tuple(column[:0] for column in TRIPLETS)) == 0


@pytest.mark.parametrize("name", [HINGE, "GradedHinge"])
def test_given_triplets_need_no_cubic_memory(name: str) -> None:
    loss = create_loss(loss_settings(name), CLASS_CODES, 6)
    embeddings, labels = unit_vectors(0, 4000).float().requires_grad_(), torch.arange(4000) % 3
    loss(embeddings, labels, TRIPLETS).backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_cosine_softmax_agrees_with_a_loop(smoothing: float) -> None:
    loss, embeddings = CosineSoftmax(3, 6, scale=8, margin=0.2, smoothing=smoothing).double(), unit_vectors(3)
    total = 0.0
    for embedding, label in zip(embeddings, LABELS.tolist(), strict=True):
        cosines = [float(embedding @ proxy / proxy.norm()) for proxy in loss.proxies.detach()]
        logits = torch.tensor([8 * (cosine - (0.2 if c == label else 0)) for c, cosine in enumerate(cosines)], dtype=torch.float64)
        target = torch.tensor([smoothing / 3 + (1 - smoothing if c == label else 0) for c in range(3)], dtype=torch.float64)
        total -= float(target @ (logits - logits.exp().sum().log()))
    assert loss(embeddings, LABELS).item() == pytest.approx(total / 9, abs=1e-12)


def test_cosine_softmax_has_cosface_and_torch_as_limits() -> None:
    embeddings = unit_vectors(5).requires_grad_()
    ours, cosface = CosineSoftmax(3, 6, 32, 0.3, smoothing=0).double(), losses.CosFaceLoss(3, 6, margin=0.3, scale=32).double()
    with torch.no_grad():
        cosface.W.copy_(2.5 * ours.proxies.T)
    values = [loss(embeddings, LABELS) for loss in (ours, cosface)]
    assert values[0].item() == pytest.approx(values[1].item(), abs=1e-6)
    assert torch.allclose(*(_along_the_sphere(value, embeddings) for value in values), atol=1e-6)
    smooth = CosineSoftmax(3, 6, 16, margin=0, smoothing=0.2).double()
    expected = cross_entropy(16 * embeddings @ smooth.proxies.T, LABELS, label_smoothing=0.2)
    assert smooth(embeddings, LABELS).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("name", [HINGE, *CUSTOM_LOSSES])
@pytest.mark.parametrize("triplets", [None, TRIPLETS], ids=["all triplets", "given triplets"])
def test_the_gradient_is_the_numerical_gradient(name: str, triplets: object) -> None:
    torch.manual_seed(0)
    loss = create_loss(loss_settings(name), CLASS_CODES, 6).double()
    arguments = () if name in LABELS_ONLY else (triplets,)
    assert torch.autograd.gradcheck(lambda points: loss(points, LABELS, *arguments), unit_vectors(7).requires_grad_())


# The mean difference of the two relevances, over all triplets of the three classes, is 0.7.
@pytest.mark.parametrize(("name", "value"), [(HINGE, 0.2), ("GradedHinge", 0.14), ("CosineSoftmax", None)])
def test_the_gradient_is_finite_at_distance_0(name: str, value: float | None) -> None:
    torch.manual_seed(0)
    loss, embeddings = (
        create_loss(loss_settings(name), CLASS_CODES, 6).double(),
        normalize(torch.ones(6, 6).double(), dim=1).requires_grad_(),
    )
    result = loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
    along = _along_the_sphere(result, embeddings)
    assert along.isfinite().all()
    if value is not None:
        assert result.item() == pytest.approx(value)
        # The gradient of a squared distance is 0 at distance 0.
        assert along.abs().max() < 1e-12


@pytest.mark.parametrize("name", [HINGE, "GradedHinge"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["one class", "no pair"])
def test_a_batch_without_a_triplet_has_loss_0(name: str, labels: list[int]) -> None:
    embeddings = unit_vectors(0, 3).requires_grad_()
    loss = create_loss(loss_settings(name), torch.arange(3)[:, None], 6)(embeddings, torch.tensor(labels))
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", [HINGE, *CUSTOM_LOSSES])
def test_a_batch_may_have_any_size_and_order(name: str) -> None:
    torch.manual_seed(0)
    loss, embeddings, labels = (
        create_loss(loss_settings(name), CLASS_CODES, 6).double(),
        unit_vectors(1, 7),
        torch.tensor([0, 0, 1, 1, 1, 2, 2]),
    )
    order = torch.tensor([6, 2, 0, 5, 3, 1, 4])
    assert loss(embeddings[order], labels[order]).item() == pytest.approx(loss(embeddings, labels).item())


@pytest.mark.parametrize("name", losses.CrossBatchMemory.supported_losses())
def test_a_memory_counts_each_image_once_in_any_position(name: str) -> None:
    def last(*batches: int) -> float:
        loss = losses.CrossBatchMemory(create_loss(loss_settings(name), CLASS_CODES, 6), 6, 18)
        return [loss(unit_vectors(seed).float(), LABELS).item() for seed in batches][-1]

    without_memory = create_loss(loss_settings(name), CLASS_CODES, 6)(unit_vectors(0).float(), LABELS).item()
    # On the right side batch 0 overwrites batch 2, so that it is before batch 1 in memory.
    correct = last(0) == pytest.approx(without_memory), last(1, 0) == pytest.approx(last(2, 1, 0))
    assert correct == {"NCALoss": (False, True), "LiftedStructureLoss": (True, False)}.get(name, (True, True))
    assert all(correct) == (name in WITH_MEMORY)


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_every_memory_trains_and_resumes_from_its_state(name: str) -> None:
    def step(loss: WeightedLosses, seed: int) -> float:
        points = unit_vectors(seed).float().requires_grad_()
        value = loss(points, LABELS)
        value.backward()
        assert points.grad.isfinite().all()
        return value.item()

    # Two batches fill 18 of 20 positions, the third wraps around; the state is saved at each stage.
    for batches in range(4):
        loss, resumed = weighted_losses(loss_settings(name, memory=20)), weighted_losses(loss_settings(name, memory=20), seed=1)
        for seed in range(batches):
            step(loss, seed)
        file = io.BytesIO()
        torch.save(loss.state_dict(), file)
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        assert [step(loss, seed) for seed in range(4, 8)] == [step(resumed, seed) for seed in range(4, 8)]
    memory = loss.losses[0].embedding_memory
    assert memory.shape == (20, 6)
    assert not memory.requires_grad


def test_earlier_batches_count_while_they_are_in_memory() -> None:
    loss = weighted_losses(LossSettings(name="TripletMarginLoss", kwargs={"margin": 0.1}, memory=18))
    batches = [unit_vectors(seed).float() for seed in range(4)]
    for number, points in enumerate(batches):
        held = torch.cat([points, *batches[max(number - 1, 0) : number]])
        far, labels = torch.cdist(points, held), LABELS.repeat(2)[: len(held)]
        hinges = [(0.1 + far[q, p] - far[q, n]).clamp(min=0) for q in range(9) for p in range(len(held)) for n in range(len(held))
                  if p != q and labels[q] == labels[p] != labels[n]]  # fmt: skip
        active = torch.stack([hinge for hinge in hinges if hinge > 0])
        assert loss(points, LABELS).item() == pytest.approx(active.mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", MINERS)
def test_a_memory_uses_its_miner(name: str) -> None:
    kwargs = {"pos_strategy": "hard", "neg_strategy": "hard"} if name == "BatchEasyHardMiner" else {}
    settings = LossSettings(name="TripletMarginLoss", memory=27, miner=MinerSettings(name=name, kwargs=kwargs))
    loss, stored = weighted_losses(settings), []
    for seed in range(3):
        points = unit_vectors(seed, spread=0.3).float().requires_grad_()
        value = loss(points, LABELS)
        value.backward()
        stored.append(points)
        assert value > 0
        assert points.grad.isfinite().all()
    assert torch.equal(loss.losses[0].embedding_memory, torch.cat(stored))
    if name == "BatchHardMiner":
        far, labels = torch.cdist(points, torch.cat(stored)), LABELS.repeat(3)
        same = LABELS[:, None] == labels
        hinges = (0.05 + torch.where(same, far, -1).amax(1) - torch.where(same, 9, far).amin(1)).relu()
        assert value.item() == pytest.approx(hinges[hinges > 0].mean().item(), rel=1e-5)

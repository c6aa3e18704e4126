"""Our losses against loops over triplets and against the library's, and every loss, miner and memory of the library by name."""

import io
import itertools
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from pytorch_metric_learning import distances, losses, miners, reducers
from torch.nn.functional import cross_entropy, normalize

from deeprank.errors import ConfigError
from deeprank.training.losses import (
    CUSTOM_LOSSES,
    LABELS_ONLY,
    NO_MINER,
    PATCHED,
    UNSUPPORTED,
    WITH_MEMORY,
    CosineSoftmax,
    GradedHinge,
    LossSettings,
    MinerSettings,
    RankingHinge,
    WeightedLosses,
    create_loss,
)

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
# Classes 0 and 1 are cousins, 2 is a stranger.
RELEVANCES = torch.tensor([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], dtype=torch.float64)
TRIPLETS = (torch.tensor([0, 0, 4, 8]), torch.tensor([1, 2, 3, 7]), torch.tensor([3, 6, 7, 0]))
LIBRARY = [name for name in dir(losses) if name.endswith("Loss") and name not in UNSUPPORTED]
MINERS = [name for name in dir(miners) if name.endswith("Miner") and name != "BaseMiner"]
REQUIRED = {"RankedListLoss": {"margin": 0.4, "Tn": 1.0}}


def _points(seed: int, n: int = 9, d: int = 6, spread: float = 1) -> torch.Tensor:
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(noise * spread + torch.eye(d, dtype=torch.float64)[0], dim=1)


def _settings(name: str, **others: object) -> LossSettings:
    return LossSettings(name=name, kwargs=REQUIRED.get(name, {}), **others)


def _weighted(*settings: LossSettings, seed: int = 0) -> WeightedLosses:
    torch.manual_seed(seed)
    return WeightedLosses(settings, RELEVANCES.float(), 6)


def _distance(embeddings: torch.Tensor, i: int, j: int) -> torch.Tensor:
    return (embeddings[i] - embeddings[j]).square().sum()


def _hinges(embeddings: torch.Tensor, labels: torch.Tensor, margin: float) -> list[torch.Tensor]:
    triplets = [(q, p, n) for q, p, n in itertools.permutations(range(len(labels)), 3) if labels[q] == labels[p] != labels[n]]
    return [(margin + _distance(embeddings, q, p) - _distance(embeddings, q, n)).clamp(min=0) for q, p, n in triplets]


def _along_the_sphere(loss: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, embeddings)
    return gradient - (gradient * embeddings).sum(1, keepdim=True) * embeddings


@pytest.mark.parametrize("margin", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 0, 1, 0, 1, 0, 1, 0], [0, 0, 1, 2, 3, 4, 5, 6, 7]])
@pytest.mark.parametrize("seed", range(3))
def test_the_hinge_is_the_mean_over_triplets_inside_the_gap(margin: float, labels: list[int], seed: int) -> None:
    embeddings, classes = _points(seed).requires_grad_(), torch.tensor(labels)
    hinges = torch.stack(_hinges(embeddings, classes, margin))
    expected = hinges[hinges > 0].mean()
    found = RankingHinge(margin)(embeddings, classes)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(_along_the_sphere(found, embeddings), _along_the_sphere(expected, embeddings), atol=1e-10)
    assert RankingHinge(margin, "mean")(embeddings, classes).item() == pytest.approx(hinges.mean().item(), abs=1e-12)


@pytest.mark.parametrize(("reduction", "reducer"), [("avg_non_zero", reducers.AvgNonZeroReducer()), ("mean", reducers.MeanReducer())])
@pytest.mark.parametrize("triplets", [None, TRIPLETS], ids=["all triplets", "given triplets"])
def test_the_hinge_is_the_triplet_margin_loss_of_squared_distances(reduction: str, reducer: object, triplets: object) -> None:
    embeddings = _points(4).requires_grad_()
    library = losses.TripletMarginLoss(0.3, distance=distances.LpDistance(power=2), reducer=reducer)(embeddings, LABELS, triplets)
    ours = RankingHinge(0.3, reduction)(embeddings, LABELS, triplets)
    assert ours.item() == pytest.approx(library.item(), abs=1e-12)
    assert torch.allclose(_along_the_sphere(ours, embeddings), _along_the_sphere(library, embeddings), atol=1e-10)


def test_one_violator_among_easy_triplets_keeps_its_gradient() -> None:
    # One class at 0 and 50 degrees; of the others, far away in other directions, one sits at 60 degrees.
    degrees = torch.deg2rad(torch.tensor([0.0, 50.0, 60.0], dtype=torch.float64))
    plane = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    embeddings = torch.zeros(10, 9, dtype=torch.float64)
    embeddings[:3, :2] = plane
    embeddings[3:, 2:] = torch.eye(7, dtype=torch.float64)
    embeddings.requires_grad_()
    labels = torch.tensor([0, 0, *range(1, 9)])
    hinges = _hinges(embeddings, labels, margin=0.1)
    violators = [hinge for hinge in hinges if hinge > 0]
    assert len(violators) == 1
    assert len(hinges) - len(violators) >= 7
    # What the seed does: the sum over the batch hides it.
    assert sum(0.1 + _distance(embeddings, q, p) - _distance(embeddings, q, n) for q, p in ((0, 1), (1, 0)) for n in range(2, 10)) < 0
    loss = RankingHinge(margin=0.1)(embeddings, labels)
    assert loss.item() == pytest.approx(violators[0].item())
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert (gradient[:3].abs().sum(1) > 0.1).all()
    assert (gradient[3:] == 0).all()


@pytest.mark.parametrize("margin", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_graded_hinge_is_the_mean_over_active_pairs_of_unlike_relevance(margin: float, seed: int) -> None:
    embeddings, hinges = _points(seed).requires_grad_(), []
    for q, a, b in itertools.permutations(range(9), 3):
        nearer, farther = RELEVANCES[LABELS[q], LABELS[a]], RELEVANCES[LABELS[q], LABELS[b]]
        if nearer > farther:
            hinges.append((margin * (nearer - farther) + _distance(embeddings, q, a) - _distance(embeddings, q, b)).clamp(min=0))
    expected = torch.stack([hinge for hinge in hinges if hinge > 0]).mean()
    found = GradedHinge(RELEVANCES, margin)(embeddings, LABELS)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(_along_the_sphere(found, embeddings), _along_the_sphere(expected, embeddings), atol=1e-10)


def test_without_grades_the_graded_hinge_is_the_ranking_hinge() -> None:
    graded = GradedHinge(torch.eye(3, dtype=torch.float64), 0.3)
    for triplets in (None, TRIPLETS):
        expected = RankingHinge(0.3)(_points(0), LABELS, triplets).item()
        assert graded(_points(0), LABELS, triplets).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("loss", [RankingHinge(0.5), GradedHinge(RELEVANCES, 0.5)], ids=["ranking", "graded"])
def test_given_triplets_alone_count(loss: torch.nn.Module) -> None:
    embeddings, graded = _points(2), isinstance(loss, GradedHinge)
    hinges = []
    for q, a, b in zip(*(column.tolist() for column in TRIPLETS), strict=True):
        width = 0.5 * (RELEVANCES[LABELS[q], LABELS[a]] - RELEVANCES[LABELS[q], LABELS[b]]) if graded else 0.5
        hinges.append((width + _distance(embeddings, q, a) - _distance(embeddings, q, b)).clamp(min=0))
    inside = torch.stack(hinges)[torch.stack(hinges) > 0]
    assert loss(embeddings, LABELS, TRIPLETS).item() == pytest.approx(inside.mean().item(), abs=1e-12)
    moved = embeddings.clone()
    moved[5] = -moved[5]
    assert loss(moved, LABELS, TRIPLETS) == loss(embeddings, LABELS, TRIPLETS)
    assert loss(embeddings, LABELS, tuple(column[:0] for column in TRIPLETS)) == 0


@pytest.mark.parametrize("name", ["RankingHinge", "GradedHinge"])
def test_given_triplets_of_thousands_of_images_need_no_cube_of_memory(name: str) -> None:
    loss = create_loss(_settings(name), RELEVANCES.float(), 6)
    embeddings, labels = _points(0, 4000).float().requires_grad_(), torch.arange(4000) % 3
    loss(embeddings, labels, TRIPLETS).backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_cosine_softmax_is_the_cross_entropy_of_cosines_less_the_margin(smoothing: float) -> None:
    loss, embeddings = CosineSoftmax(3, 6, scale=8, margin=0.2, smoothing=smoothing).double(), _points(3)
    total = 0.0
    for embedding, label in zip(embeddings, LABELS.tolist(), strict=True):
        cosines = [float(embedding @ proxy / proxy.norm()) for proxy in loss.proxies.detach()]
        logits = torch.tensor([8 * (cosine - (0.2 if c == label else 0)) for c, cosine in enumerate(cosines)], dtype=torch.float64)
        wanted = torch.tensor([smoothing / 3 + (1 - smoothing if c == label else 0) for c in range(3)], dtype=torch.float64)
        total -= float(wanted @ (logits - logits.exp().sum().log()))
    assert loss(embeddings, LABELS).item() == pytest.approx(total / 9, abs=1e-12)


def test_the_cosine_softmax_without_smoothing_is_cosface_and_without_margin_torchs() -> None:
    embeddings = _points(5).requires_grad_()
    ours, cosface = CosineSoftmax(3, 6, 32, 0.3, smoothing=0).double(), losses.CosFaceLoss(3, 6, margin=0.3, scale=32).double()
    with torch.no_grad():
        cosface.W.copy_(2.5 * ours.proxies.T)
    values = [loss(embeddings, LABELS) for loss in (ours, cosface)]
    assert values[0].item() == pytest.approx(values[1].item(), abs=1e-6)
    assert torch.allclose(*(_along_the_sphere(value, embeddings) for value in values), atol=1e-6)
    smooth = CosineSoftmax(3, 6, 16, margin=0, smoothing=0.2).double()
    expected = cross_entropy(16 * embeddings @ smooth.proxies.T, LABELS, label_smoothing=0.2)
    assert smooth(embeddings, LABELS).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("name", CUSTOM_LOSSES)
@pytest.mark.parametrize("triplets", [None, TRIPLETS], ids=["all triplets", "given triplets"])
def test_the_gradient_is_the_numerical_one(name: str, triplets: object) -> None:
    torch.manual_seed(0)
    loss = create_loss(_settings(name), RELEVANCES, 6).double()
    given = () if name in LABELS_ONLY else (triplets,)
    assert torch.autograd.gradcheck(lambda points: loss(points, LABELS, *given), _points(7).requires_grad_())


# The relevances that a query ranks differ, over the three classes, by 5 in 8 rankings, 5 in 8, and 4 in 4: 0.7 of the margin.
@pytest.mark.parametrize(("name", "value"), [("RankingHinge", 0.2), ("GradedHinge", 0.14), ("CosineSoftmax", None)])
def test_the_gradient_is_finite_and_right_at_distance_0(name: str, value: float | None) -> None:
    torch.manual_seed(0)
    loss, embeddings = create_loss(_settings(name), RELEVANCES, 6).double(), normalize(torch.ones(6, 6).double(), dim=1).requires_grad_()
    found = loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
    along = _along_the_sphere(found, embeddings)
    assert along.isfinite().all()
    if value is not None:
        assert found.item() == pytest.approx(value)
        # A squared distance is flat at 0.
        assert along.abs().max() < 1e-12


@pytest.mark.parametrize("name", ["RankingHinge", "GradedHinge"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["one class", "no pair"])
def test_a_batch_without_a_triplet_costs_nothing_and_breaks_nothing(name: str, labels: list[int]) -> None:
    embeddings = _points(0, 3).requires_grad_()
    loss = create_loss(_settings(name), torch.eye(3, dtype=torch.float64), 6)(embeddings, torch.tensor(labels))
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", CUSTOM_LOSSES)
def test_a_batch_may_have_any_size_and_order(name: str) -> None:
    torch.manual_seed(0)
    loss, embeddings, labels = create_loss(_settings(name), RELEVANCES, 6).double(), _points(1, 7), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    order = torch.tensor([6, 2, 0, 5, 3, 1, 4])
    assert loss(embeddings[order], labels[order]).item() == pytest.approx(loss(embeddings, labels).item())


def test_a_loss_is_made_by_name_with_its_arguments() -> None:
    loss = create_loss(LossSettings(name="TripletMarginLoss", kwargs={"margin": 0.3}), RELEVANCES, 16)
    assert type(loss).__name__ == "TripletMarginLoss"
    assert loss.margin == 0.3
    assert create_loss(LossSettings(), RELEVANCES, 16).temperature == 0.1
    for name in ("RankingHinge", "GradedHinge"):
        loss = create_loss(LossSettings(name=name, kwargs={"margin": 0.7}), RELEVANCES, 16)
        assert isinstance(loss, CUSTOM_LOSSES[name])
        assert loss.margin == 0.7


@pytest.mark.parametrize("name", [*CUSTOM_LOSSES, *LIBRARY])
def test_every_loss_trains_batch_after_batch_and_goes_on_from_its_state(name: str) -> None:
    def values(loss: WeightedLosses, seeds: range) -> list[float]:
        found = []
        for seed in seeds:
            embeddings = _points(seed).float().requires_grad_()
            value = loss(embeddings, LABELS)
            value.backward()
            assert embeddings.grad.isfinite().all()
            found.append(value.item())
        return found

    loss = _weighted(_settings(name))
    values(loss, range(2))
    other = _weighted(_settings(name), seed=1)
    other.load_state_dict(loss.state_dict())
    assert values(loss, range(2, 4)) == values(other, range(2, 4))


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_makes_of_triplets_what_is_said_of_it(name: str) -> None:
    def value(*given: object) -> torch.Tensor:
        torch.manual_seed(0)
        return create_loss(_settings(name), RELEVANCES.float(), 6)(_points(0).float(), LABELS, *given)

    query, positive, negative = TRIPLETS
    if name in NO_MINER:
        with pytest.raises(ValueError, match="indices_tuple is not supported"):
            value(TRIPLETS)
    else:
        # The same images as often, and their places exchanged.
        assert (value(TRIPLETS) == value((query, negative, positive))) == (name in LABELS_ONLY)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_loss_that_does_not_fit_in_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} {UNSUPPORTED[name]}"):
        LossSettings(name=name)


@pytest.mark.parametrize(("classes", "right"), [(3, True), (4, False)])
def test_the_librarys_smooth_ap_is_still_wrong_unless_classes_are_as_many_as_images_of_each(classes: int, right: bool) -> None:
    points, labels = _points(0, 3 * classes), torch.arange(classes).repeat_interleave(3)
    similarity, same = points @ points.T, (labels[:, None] == labels).double()
    before = torch.sigmoid((similarity[:, None, :] - similarity[:, :, None]) / 0.01) * (1 - torch.eye(len(labels)))
    precision = (1 + (before * same[:, None, :]).sum(2)) / (1 + before.sum(2))
    expected = 1 - (precision * same).sum(1).mean() / 3
    assert (losses.SmoothAPLoss()(points, labels).item() == pytest.approx(expected.item(), abs=1e-5)) == right


@pytest.mark.parametrize("name", sorted(LABELS_ONLY))
def test_a_loss_with_nothing_to_do_with_triplets_goes_by_the_classes(name: str) -> None:
    loss = _weighted(_settings(name))
    assert loss(_points(0).float(), LABELS, TRIPLETS) == loss(_points(0).float(), LABELS)


@pytest.mark.parametrize("name", [name for name in [*CUSTOM_LOSSES, *LIBRARY] if name not in LABELS_ONLY])
def test_a_loss_of_triplets_or_pairs_is_given_them(name: str) -> None:
    loss, alone = _weighted(_settings(name)), create_loss(_settings(name), RELEVANCES.float(), 6)
    points = _points(0).float()
    assert loss(points, LABELS, TRIPLETS) == alone(points, LABELS, TRIPLETS)
    assert _weighted(_settings(name))(points, LABELS) == create_loss(_settings(name), RELEVANCES.float(), 6)(points, LABELS)


@pytest.mark.parametrize("name", MINERS)
@pytest.mark.parametrize("loss", ["TripletMarginLoss", "RankingHinge", "GradedHinge"])
def test_every_miner_picks_what_counts(name: str, loss: str) -> None:
    mined, points = _weighted(_settings(loss, miner=MinerSettings(name=name))), _points(0, spread=0.3).float().requires_grad_()
    torch.manual_seed(5)
    value = mined(points, LABELS)
    value.backward()
    assert value.isfinite()
    assert points.grad.isfinite().all()
    torch.manual_seed(5)
    picked = getattr(miners, name)()(points, LABELS)
    assert len(picked[0])
    assert value == create_loss(_settings(loss), RELEVANCES.float(), 6)(points, LABELS, picked)


@pytest.mark.parametrize("name", losses.CrossBatchMemory.supported_losses())
def test_a_memory_neither_counts_a_image_twice_nor_cares_where_it_lies(name: str) -> None:
    def last(*batches: int) -> float:
        loss = losses.CrossBatchMemory(create_loss(_settings(name), RELEVANCES.float(), 6), 6, 18)
        return [loss(_points(seed).float(), LABELS).item() for seed in batches][-1]

    alone = create_loss(_settings(name), RELEVANCES.float(), 6)(_points(0).float(), LABELS).item()
    # In the second, batch 2 is overwritten by batch 0, which so lies before batch 1.
    right = last(0) == pytest.approx(alone), last(1, 0) == pytest.approx(last(2, 1, 0))
    assert right == {"NCALoss": (False, True), "LiftedStructureLoss": (True, False)}.get(name, (True, True))
    assert all(right) == (name in WITH_MEMORY)


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_every_memory_trains_batch_after_batch_and_goes_on_from_its_state(name: str) -> None:
    def step(loss: WeightedLosses, seed: int) -> float:
        points = _points(seed).float().requires_grad_()
        value = loss(points, LABELS)
        value.backward()
        assert points.grad.isfinite().all()
        return value.item()

    # Of 20 places, two batches fill 18, the third turns round; a batch is broken off at each stage.
    for batches in range(4):
        loss, resumed = _weighted(_settings(name, memory=20)), _weighted(_settings(name, memory=20), seed=1)
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


def test_older_batches_count_as_long_as_the_memory_holds_them() -> None:
    loss = _weighted(LossSettings(name="TripletMarginLoss", kwargs={"margin": 0.1}, memory=18))
    batches = [_points(seed).float() for seed in range(4)]
    for number, points in enumerate(batches):
        held = torch.cat([points, *batches[max(number - 1, 0) : number]])
        far, labels = torch.cdist(points, held), LABELS.repeat(2)[: len(held)]
        hinges = [(0.1 + far[q, p] - far[q, n]).clamp(min=0) for q in range(9) for p in range(len(held)) for n in range(len(held))
                  if p != q and labels[q] == labels[p] != labels[n]]  # fmt: skip
        inside = torch.stack([hinge for hinge in hinges if hinge > 0])
        assert loss(points, LABELS).item() == pytest.approx(inside.mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", MINERS)
def test_a_memory_is_mined_by_its_miner(name: str) -> None:
    kwargs = {"pos_strategy": "hard", "neg_strategy": "hard"} if name == "BatchEasyHardMiner" else {}
    settings = LossSettings(name="TripletMarginLoss", memory=27, miner=MinerSettings(name=name, kwargs=kwargs))
    loss, remembered = _weighted(settings), []
    for seed in range(3):
        points = _points(seed, spread=0.3).float().requires_grad_()
        value = loss(points, LABELS)
        value.backward()
        remembered.append(points)
        assert value > 0
        assert points.grad.isfinite().all()
    assert torch.equal(loss.losses[0].embedding_memory, torch.cat(remembered))
    if name == "BatchHardMiner":
        far, labels = torch.cdist(points, torch.cat(remembered)), LABELS.repeat(3)
        same = LABELS[:, None] == labels
        hinges = (0.05 + torch.where(same, far, -1).amax(1) - torch.where(same, 9, far).amin(1)).relu()
        assert value.item() == pytest.approx(hinges[hinges > 0].mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"name": "RankingHinge", "memory": 9}, "RankingHinge cannot use a memory; these can: AngularLoss, .*TripletMarginLoss"),
        ({"name": "CosFaceLoss", "memory": 9}, "CosFaceLoss cannot use a memory"),
        ({"name": "NCALoss", "memory": 9}, "NCALoss cannot use a memory"),
        ({"name": "LiftedStructureLoss", "memory": 9}, "LiftedStructureLoss cannot use a memory"),
        ({"name": "TripletMarginLoss", "memory": 9, "kwargs": {"swap": True}}, "TripletMarginLoss cannot swap with a memory"),
        ({"memory": 9, "miner": {"name": "BatchEasyHardMiner"}}, "the easiest positive of an image is itself"),
        ({"name": "CosineSoftmax", "miner": {"name": "BatchHardMiner"}}, "CosineSoftmax takes no miner"),
        ({"memory": -1}, "greater than or equal to 0"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        LossSettings.model_validate(settings)


def test_what_only_a_batch_can_show_is_refused_when_it_comes() -> None:
    with pytest.raises(ConfigError, match="a memory of 8 does not hold a batch of 9; make it larger"):
        _weighted(LossSettings(memory=8))(_points(0).float(), LABELS)
    for settings in (LossSettings(memory=9), LossSettings(miner=MinerSettings(name="BatchHardMiner"))):
        with pytest.raises(ConfigError, match="SupConLoss is given triplets, and has a miner or a memory"):
            _weighted(settings)(_points(0).float(), LABELS, TRIPLETS)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("ArcFaceLoss CosFaceLoss LargeMarginSoftmaxLoss NormalizedSoftmaxLoss SphereFaceLoss", lambda loss: loss.W.T),
        ("CosineSoftmax ProxyAnchorLoss ProxyNCALoss", lambda loss: loss.proxies),
        ("P2SGradLoss", lambda loss: loss.weight.T),
    ],
    ids=["W", "proxies", "weight"],
)
@pytest.mark.parametrize("count", [3, 6], ids=["3 classes", "as many classes as dimensions"])
def test_vectors_of_classes_start_from_the_class_centers(names: str, classes: Callable[..., torch.Tensor], count: int) -> None:
    centers, each = _points(0, count).float(), torch.arange(count)
    for name in names.split():
        loss = WeightedLosses([LossSettings(), _settings(name)], torch.eye(count), 6)
        loss.start_from(7 * centers)
        (parameter,) = loss.parameters()
        assert parameter.requires_grad
        assert torch.allclose(classes(loss.losses[1]), centers, atol=1e-6)
        # An image at its class's center costs less than one at another's.
        assert loss.losses[1](centers, each) < loss.losses[1](centers, each.roll(1))


@pytest.mark.parametrize("name", ["SoftTripleLoss", "SubCenterArcFaceLoss", "SupConLoss", "MarginLoss"])
def test_what_keeps_no_one_vector_a_class_is_left_alone(name: str) -> None:
    loss = _weighted(_settings(name))
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    loss.start_from(_points(0, 3).float())
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


def test_several_losses_are_added_with_their_weights() -> None:
    settings = [LossSettings(weight=0.5), LossSettings(name="RankingHinge", weight=2), LossSettings(name="CosineSoftmax", weight=3)]
    embeddings, loss = _points(0).float(), _weighted(*settings)
    for triplets in (None, TRIPLETS):
        supcon, hinge = (one(embeddings, LABELS, triplets) for one in loss.losses[:2])
        expected = 0.5 * supcon + 2 * hinge + 3 * loss.losses[2](embeddings, LABELS)
        assert loss(embeddings, LABELS, triplets).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", [*CUSTOM_LOSSES, *LIBRARY])
def test_the_same_seed_gives_the_same_loss(name: str) -> None:
    first, second = (_weighted(_settings(name))(_points(0).float(), LABELS) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("settings", "name", "complaint"),
    [
        (LossSettings, "SupConLos", "there is no loss SupConLos; nearest: SupConLoss"),
        (LossSettings, "rankinghinge", "nearest: RankingHinge"),
        (LossSettings, "qqq", "there is no loss qqq; there are RankingHinge, GradedHinge, CosineSoftmax, "),
        (LossSettings, "BaseMetricLossFunction", "there is no loss BaseMetricLossFunction"),
        (MinerSettings, "TripletMargnMiner", "there is no miner TripletMargnMiner; nearest: TripletMarginMiner"),
        (MinerSettings, "qqq", "there is no miner qqq; there are AngularMiner, "),
        (MinerSettings, "BaseMiner", "there is no miner BaseMiner"),
        (MinerSettings, "EmbeddingsAlreadyPackagedAsTriplets", "there is no miner Embeddings"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest(settings: type[LossSettings], name: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        settings(name=name)


def test_a_distance_and_a_reducer_are_given_by_name() -> None:
    points, named = _points(3), {"distance": "CosineSimilarity", "reducer": {"name": "ThresholdReducer", "kwargs": {"low": 0.1}}}
    settings = LossSettings.model_validate(
        {
            "name": "TripletMarginLoss",
            "kwargs": {"margin": 0.2, **named},
            "miner": {"name": "TripletMarginMiner", "kwargs": {"type_of_triplets": "semihard", "distance": "CosineSimilarity"}},
        }
    )
    own = WeightedLosses((settings,), RELEVANCES, 6)(points, LABELS)
    cosine = distances.CosineSimilarity()
    mined = miners.TripletMarginMiner(type_of_triplets="semihard", distance=cosine)(points, LABELS)
    library = losses.TripletMarginLoss(margin=0.2, distance=cosine, reducer=reducers.ThresholdReducer(low=0.1))
    assert own == library(points, LABELS, mined) > 0
    assert own != losses.TripletMarginLoss(margin=0.2)(points, LABELS, mined)
    with pytest.raises(ConfigError, match=r"kwargs of TripletMarginLoss: there is no distance Cosine; there are .*CosineSimilarity"):
        create_loss(LossSettings(name="TripletMarginLoss", kwargs={"distance": "Cosine"}), RELEVANCES, 6)
    wrong = {"distance": {"name": "LpDistance", "kwargs": {"root": 2}}}
    with pytest.raises(ConfigError, match=r"kwargs of TripletMarginLoss: .*root"):
        create_loss(LossSettings.model_validate({"name": "TripletMarginLoss", "kwargs": wrong}), RELEVANCES, 6)


@pytest.mark.parametrize("name", ["TripletMarginLoss", *CUSTOM_LOSSES, *PATCHED])
def test_arguments_that_a_loss_does_not_take_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"train.losses: kwargs of {name}: .*'margn'"):
        create_loss(LossSettings(name=name, kwargs={"margn": 1}), RELEVANCES, 16)


@pytest.mark.parametrize("memory", [0, 9])
@pytest.mark.parametrize(("argument", "complaint"), [({"margn": 1}, "'margn'"), ({"pos_strategy": "medium"}, "must be one of")])
def test_arguments_that_a_miner_does_not_take_are_named(argument: dict[str, float | str], complaint: str, memory: int) -> None:
    miner = MinerSettings(name="BatchEasyHardMiner", kwargs={"pos_strategy": "hard"} | argument)
    with pytest.raises(ConfigError, match=f"train.losses: kwargs of BatchEasyHardMiner: (.|\n)*{complaint}"):
        WeightedLosses([LossSettings(miner=miner, memory=memory)], RELEVANCES, 6)


@pytest.mark.parametrize(
    ("name", "kwargs", "complaint"),
    [
        ("RankedListLoss", {}, "missing 2 required"),
        ("PNPLoss", {"variant": "x"}, "must be one of"),
        ("RankingHinge", {"reduction": "none"}, "reduction is avg_non_zero or mean, not none"),
    ],
)
def test_arguments_that_are_missing_or_wrong_are_named(name: str, kwargs: dict[str, float | str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"kwargs of {name}: .*{complaint}"):
        create_loss(LossSettings(name=name, kwargs=kwargs), RELEVANCES, 16)

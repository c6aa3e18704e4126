"""Losses and miners of pytorch-metric-learning by name, and their weighted sum."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from pytorch_metric_learning import distances, losses, miners, reducers
from torch.nn.functional import normalize

from deeprank.errors import ConfigError
from deeprank.training.losses import (
    CUSTOM_LOSSES,
    LABELS_ONLY,
    NO_MINER,
    PATCHED,
    UNSUPPORTED,
    LossSettings,
    MinerSettings,
    WeightedLosses,
    create_loss,
)
from tests.training.loss_examples import (
    CLASS_CODES,
    HINGE,
    LABELS,
    LIBRARY_LOSSES,
    MINERS,
    TRIPLETS,
    loss_settings,
    unit_vectors,
    weighted_losses,
)


def test_a_loss_is_created_by_name_with_its_kwargs() -> None:
    loss = create_loss(LossSettings(name="TripletMarginLoss", kwargs={"margin": 0.3}), CLASS_CODES, 16)
    assert type(loss).__name__ == "TripletMarginLoss"
    assert loss.margin == 0.3
    assert create_loss(LossSettings(), CLASS_CODES, 16).temperature == 0.1
    loss = create_loss(LossSettings(name="GradedHinge", kwargs={"margin": 0.7}), CLASS_CODES, 16)
    assert isinstance(loss, CUSTOM_LOSSES["GradedHinge"])
    assert loss.margin == 0.7


@pytest.mark.parametrize("name", [HINGE, *CUSTOM_LOSSES, *LIBRARY_LOSSES])
def test_every_loss_trains_and_resumes_from_its_state(name: str) -> None:
    def values(loss: WeightedLosses, seeds: range) -> list[float]:
        results = []
        for seed in seeds:
            embeddings = unit_vectors(seed).float().requires_grad_()
            value = loss(embeddings, LABELS)
            value.backward()
            assert embeddings.grad.isfinite().all()
            results.append(value.item())
        return results

    loss = weighted_losses(loss_settings(name))
    values(loss, range(2))
    other = weighted_losses(loss_settings(name), seed=1)
    other.load_state_dict(loss.state_dict())
    assert values(loss, range(2, 4)) == values(other, range(2, 4))


@pytest.mark.parametrize("name", LIBRARY_LOSSES)
def test_the_library_uses_triplets_as_listed(name: str) -> None:
    def value(*triplets: object) -> torch.Tensor:
        torch.manual_seed(0)
        return create_loss(loss_settings(name), CLASS_CODES, 6)(unit_vectors(0).float(), LABELS, *triplets)

    query, positive, negative = TRIPLETS
    if name in NO_MINER:
        with pytest.raises(ValueError, match="indices_tuple is not supported"):
            value(TRIPLETS)
    else:
        # The same images, but positives and negatives exchanged.
        assert (value(TRIPLETS) == value((query, negative, positive))) == (name in LABELS_ONLY)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_loss_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} {UNSUPPORTED[name]}"):
        LossSettings(name=name)


@pytest.mark.parametrize(("num_classes", "correct"), [(3, True), (4, False)])
def test_smooth_ap_of_the_library_is_still_wrong(num_classes: int, correct: bool) -> None:
    points, labels = unit_vectors(0, 3 * num_classes), torch.arange(num_classes).repeat_interleave(3)
    similarity, same = points @ points.T, (labels[:, None] == labels).double()
    before = torch.sigmoid((similarity[:, None, :] - similarity[:, :, None]) / 0.01) * (1 - torch.eye(len(labels)))
    precision = (1 + (before * same[:, None, :]).sum(2)) / (1 + before.sum(2))
    expected = 1 - (precision * same).sum(1).mean() / 3
    assert (losses.SmoothAPLoss()(points, labels).item() == pytest.approx(expected.item(), abs=1e-5)) == correct


@pytest.mark.parametrize("name", sorted(LABELS_ONLY))
def test_a_loss_without_triplets_uses_the_labels(name: str) -> None:
    loss = weighted_losses(loss_settings(name))
    assert loss(unit_vectors(0).float(), LABELS, TRIPLETS) == loss(unit_vectors(0).float(), LABELS)


@pytest.mark.parametrize("name", [name for name in [HINGE, *CUSTOM_LOSSES, *LIBRARY_LOSSES] if name not in LABELS_ONLY])
def test_a_loss_of_triplets_or_pairs_gets_them(name: str) -> None:
    loss, single = weighted_losses(loss_settings(name)), create_loss(loss_settings(name), CLASS_CODES, 6)
    points = unit_vectors(0).float()
    assert loss(points, LABELS, TRIPLETS) == single(points, LABELS, TRIPLETS)
    assert weighted_losses(loss_settings(name))(points, LABELS) == create_loss(loss_settings(name), CLASS_CODES, 6)(points, LABELS)


@pytest.mark.parametrize("name", MINERS)
@pytest.mark.parametrize("loss", ["TripletMarginLoss", HINGE, "GradedHinge"])
def test_every_miner_selects_pairs_or_triplets(name: str, loss: str) -> None:
    mined, points = (
        weighted_losses(loss_settings(loss, miner=MinerSettings(name=name))),
        unit_vectors(0, spread=0.3).float().requires_grad_(),
    )
    torch.manual_seed(5)
    value = mined(points, LABELS)
    value.backward()
    assert value.isfinite()
    assert points.grad.isfinite().all()
    torch.manual_seed(5)
    selected = getattr(miners, name)()(points, LABELS)
    assert len(selected[0])
    assert value == create_loss(loss_settings(loss), CLASS_CODES, 6)(points, LABELS, selected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "GradedHinge", "memory": 9}, "GradedHinge cannot use a memory; these can: AngularLoss, .*TripletMarginLoss"),
        ({"name": "CosFaceLoss", "memory": 9}, "CosFaceLoss cannot use a memory"),
        ({"name": "NCALoss", "memory": 9}, "NCALoss cannot use a memory"),
        ({"name": "LiftedStructureLoss", "memory": 9}, "LiftedStructureLoss cannot use a memory"),
        ({"name": "TripletMarginLoss", "memory": 9, "kwargs": {"swap": True}}, "TripletMarginLoss cannot swap with a memory"),
        ({"memory": 9, "miner": {"name": "BatchEasyHardMiner"}}, "the easiest positive of an image is itself"),
        ({"name": "CosineSoftmax", "miner": {"name": "BatchHardMiner"}}, "CosineSoftmax takes no miner"),
        ({"memory": -1}, "greater than or equal to 0"),
    ],
)
def test_incompatible_loss_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LossSettings.model_validate(settings)


def test_a_batch_that_does_not_fit_the_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="a memory of 8 does not hold a batch of 9; make it larger"):
        weighted_losses(LossSettings(memory=8))(unit_vectors(0).float(), LABELS)
    for settings in (LossSettings(memory=9), LossSettings(miner=MinerSettings(name="BatchHardMiner"))):
        with pytest.raises(ConfigError, match="SupConLoss gets triplets, but its miner or memory selects others; remove one"):
            weighted_losses(settings)(unit_vectors(0).float(), LABELS, TRIPLETS)


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
def test_class_vectors_are_initialized_from_class_centers(names: str, classes: Callable[..., torch.Tensor], count: int) -> None:
    centers, each = unit_vectors(0, count).float(), torch.arange(count)
    for name in names.split():
        loss = WeightedLosses([LossSettings(), loss_settings(name)], torch.arange(count)[:, None], 6)
        loss.init_class_vectors(7 * centers)
        (parameter,) = loss.parameters()
        assert parameter.requires_grad
        assert torch.allclose(classes(loss.losses[1]), centers, atol=1e-6)
        # An image at its class's center costs less than one at another's.
        assert loss.losses[1](centers, each) < loss.losses[1](centers, each.roll(1))


@pytest.mark.parametrize("name", ["SoftTripleLoss", "SubCenterArcFaceLoss", "SupConLoss", "MarginLoss"])
def test_losses_without_one_vector_per_class_stay_unchanged(name: str) -> None:
    loss = weighted_losses(loss_settings(name))
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    loss.init_class_vectors(unit_vectors(0, 3).float())
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


def test_losses_are_summed_with_their_weights() -> None:
    settings = [LossSettings(weight=0.5), loss_settings(HINGE, weight=2), LossSettings(name="CosineSoftmax", weight=3)]
    embeddings, loss = unit_vectors(0).float(), weighted_losses(*settings)
    for triplets in (None, TRIPLETS):
        supcon, hinge = (module(embeddings, LABELS, triplets) for module in loss.losses[:2])
        expected = 0.5 * supcon + 2 * hinge + 3 * loss.losses[2](embeddings, LABELS)
        assert loss(embeddings, LABELS, triplets).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", [HINGE, *CUSTOM_LOSSES, *LIBRARY_LOSSES])
def test_the_same_seed_gives_the_same_loss(name: str) -> None:
    first, second = (weighted_losses(loss_settings(name))(unit_vectors(0).float(), LABELS) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (LossSettings, "SupConLos", "there is no loss SupConLos; nearest: SupConLoss"),
        (LossSettings, "gradedhinge", "nearest: GradedHinge"),
        (LossSettings, "qqq", "there is no loss qqq; known: GradedHinge, CosineSoftmax, "),
        (LossSettings, "BaseMetricLossFunction", "there is no loss BaseMetricLossFunction"),
        (MinerSettings, "TripletMargnMiner", "there is no miner TripletMargnMiner; nearest: TripletMarginMiner"),
        (MinerSettings, "qqq", "there is no miner qqq; known: AngularMiner, "),
        (MinerSettings, "BaseMiner", "there is no miner BaseMiner"),
        (MinerSettings, "EmbeddingsAlreadyPackagedAsTriplets", "there is no miner Embeddings"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(settings: type[LossSettings], name: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(name=name)


def test_distance_and_reducer_are_given_by_name() -> None:
    points, named = unit_vectors(3), {"distance": "CosineSimilarity", "reducer": {"name": "ThresholdReducer", "kwargs": {"low": 0.1}}}
    settings = LossSettings.model_validate(
        {
            "name": "TripletMarginLoss",
            "kwargs": {"margin": 0.2, **named},
            "miner": {"name": "TripletMarginMiner", "kwargs": {"type_of_triplets": "semihard", "distance": "CosineSimilarity"}},
        }
    )
    own = WeightedLosses((settings,), CLASS_CODES, 6)(points, LABELS)
    cosine = distances.CosineSimilarity()
    mined = miners.TripletMarginMiner(type_of_triplets="semihard", distance=cosine)(points, LABELS)
    library = losses.TripletMarginLoss(margin=0.2, distance=cosine, reducer=reducers.ThresholdReducer(low=0.1))
    assert own == library(points, LABELS, mined) > 0
    assert own != losses.TripletMarginLoss(margin=0.2)(points, LABELS, mined)
    with pytest.raises(ConfigError, match=r"kwargs of TripletMarginLoss: there is no distance Cosine; known: .*CosineSimilarity"):
        create_loss(LossSettings(name="TripletMarginLoss", kwargs={"distance": "Cosine"}), CLASS_CODES, 6)
    wrong = {"distance": {"name": "LpDistance", "kwargs": {"root": 2}}}
    with pytest.raises(ConfigError, match=r"kwargs of TripletMarginLoss: .*root"):
        create_loss(LossSettings.model_validate({"name": "TripletMarginLoss", "kwargs": wrong}), CLASS_CODES, 6)


@pytest.mark.parametrize("name", ["TripletMarginLoss", *CUSTOM_LOSSES, *PATCHED])
def test_unknown_kwargs_of_a_loss_are_reported(name: str) -> None:
    with pytest.raises(ConfigError, match=f"train.losses: kwargs of {name}: .*'margn'"):
        create_loss(LossSettings(name=name, kwargs={"margn": 1}), CLASS_CODES, 16)


@pytest.mark.parametrize("memory", [0, 9])
@pytest.mark.parametrize(("kwargs", "message"), [({"margn": 1}, "'margn'"), ({"pos_strategy": "medium"}, "must be one of")])
def test_unknown_kwargs_of_a_miner_are_reported(kwargs: dict[str, float | str], message: str, memory: int) -> None:
    miner = MinerSettings(name="BatchEasyHardMiner", kwargs={"pos_strategy": "hard"} | kwargs)
    with pytest.raises(ConfigError, match=f"train.losses: kwargs of BatchEasyHardMiner: (.|\n)*{message}"):
        WeightedLosses([LossSettings(miner=miner, memory=memory)], CLASS_CODES, 6)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("RankedListLoss", {}, "missing 2 required"),
        ("PNPLoss", {"variant": "x"}, "must be one of"),
        ("TripletMarginLoss", {"reducer": "NoReducer"}, "there is no reducer NoReducer"),
    ],
)
def test_missing_or_wrong_kwargs_of_a_loss_are_reported(name: str, kwargs: dict[str, float | str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"kwargs of {name}: .*{message}"):
        create_loss(LossSettings(name=name, kwargs=kwargs), CLASS_CODES, 16)


@pytest.mark.parametrize("name", ["GradedHinge", "TripletMarginLoss", "ProxyAnchorLoss", "SubCenterArcFaceLoss"])
def test_a_loss_by_name_alone_has_its_own_defaults(name: str) -> None:
    loss = create_loss(LossSettings(name=name), torch.arange(4)[:, None], 8)
    embeddings = normalize(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert loss(embeddings, torch.arange(8) // 2).isfinite()

"""Backbones by name, and the four sources of weights."""

from importlib.resources import files
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from deeprank.errors import ConfigError
from deeprank.models.backbone import PACKAGED_WEIGHTS, create_backbone, fold_norms, split_stages

NAME = "test_efficientnet"


@pytest.fixture(scope="module")
def classifier_weights() -> dict[str, torch.Tensor]:
    """The weights of a model with its classifier, as timm saves them."""
    torch.manual_seed(5)
    return timm.create_model(NAME, num_classes=10).state_dict()


def test_images_become_pooled_features() -> None:
    model, mean, std = create_backbone(NAME, "none")
    features = model.eval()(torch.zeros(3, 3, 64, 64))
    assert features.shape == (3, model.num_features)
    assert len(mean) == len(std) == 3


def test_the_package_has_the_published_weights() -> None:
    name, entry = next(iter(PACKAGED_WEIGHTS.items()))
    model, mean, std = create_backbone(name, "package")
    published = torch.load(str(files(entry.package) / entry.file), weights_only=True)
    own = model.state_dict()
    assert (mean, std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert len(own) == len(published) - 2
    for value, packaged in zip(own.values(), published.values(), strict=False):
        assert torch.equal(value, packaged)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_a_classifier_gives_its_backbone(classifier_weights: dict[str, torch.Tensor], tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(classifier_weights, file)
    model, _, _ = create_backbone(NAME, f"file:{file}")
    for name, value in model.state_dict().items():
        assert torch.equal(value, classifier_weights[name])


def test_weights_under_other_names_are_loaded_in_order(classifier_weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({f"features.{i}": value for i, value in enumerate(classifier_weights.values())}, tmp_path / "w.pth")
    model, _, _ = create_backbone(NAME, f"file:{tmp_path / 'w.pth'}")
    assert torch.equal(model.state_dict()["conv_stem.weight"], classifier_weights["conv_stem.weight"])


def test_a_model_that_timm_cannot_create_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"backbone mixer_s32_224, weights none: TypeError: .*dynamic_img_size"):
        create_backbone("mixer_s32_224", "none")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_damaged_weights_file_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"half a file")
    with pytest.raises(ConfigError, match=name):
        create_backbone(NAME, f"file:{tmp_path / name}")


@pytest.mark.parametrize("inside", ["state_dict", "model"])
def test_a_training_checkpoint_holds_weights_too(inside: str, tmp_path: Path) -> None:
    weights = timm.create_model(NAME).state_dict()
    torch.save({"epoch": 3, inside: {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "w.pth")
    model, _, _ = create_backbone(NAME, f"file:{tmp_path / 'w.pth'}")
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    for content in ([1, 2], {"epoch": 3}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ConfigError, match=r"w\.pth (cannot be read|does not fit)"):
            create_backbone(NAME, f"file:{tmp_path / 'w.pth'}")


def test_a_file_of_another_model_does_not_fit(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=rf"w\.pth does not fit {NAME}: .* is missing or has another shape"):
        create_backbone(NAME, f"file:{tmp_path / 'w.pth'}")


def test_without_weights_the_random_seed_decides() -> None:
    def first_weight(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return next(create_backbone(NAME, "none")[0].parameters())

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("tf_efficientnet_lite99", "none", "timm has no such model"),
        ("my_resnet18", "none", "similar names: .*resnet18"),
        ("resnet18", "package", "package has no weights of resnet18, only of tf_efficientnet_lite0"),
        ("test_efficientnet", "packaged", "'packaged' is not one of package, hub, file:PATH, none"),
        ("test_efficientnet", "file:nowhere.pth", r"nowhere\.pth does not exist"),
    ],
)
def test_unknown_models_and_weights_are_refused(name: str, weights: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_backbone(name, weights)


def _with_statistics(name: str) -> nn.Module:
    torch.manual_seed(3)
    model, _, _ = create_backbone(name, "none")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet18", "mobilenetv4_conv_small"])
def test_folding_norms_keeps_the_features(name: str) -> None:
    model = _with_statistics(name)
    folded = fold_norms(model)
    images = torch.randn(2, 3, 64, 64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(folded(images), model(images), rtol=1e-3, atol=1e-4)


class _NormFirst(nn.Module):
    """Registers convolution, then norm, but applies the norm first: folding by order would change the features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(1.0)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.conv(self.norm(pixels).relu())


def test_a_norm_before_its_convolution_is_not_folded() -> None:
    model = _NormFirst().eval()
    assert fold_norms(model) is model


@pytest.mark.parametrize(
    ("name", "count"), [("tf_efficientnet_lite0", 12), ("resnet18", 7), ("convnext_atto", 7), ("regnetx_002", 7), ("test_vit", 1)]
)
def test_the_stages_in_order_are_the_model(name: str, count: int) -> None:
    model, _, _ = create_backbone(name, "none")
    stages = split_stages(model.eval())
    images = torch.randn(2, 3, 160, 160)
    assert len(stages) == count
    assert torch.allclose(nn.Sequential(*stages)(images), model(images), atol=1e-5)

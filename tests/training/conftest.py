"""Settings of all tests of training."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deeprank.models.backbone import create_backbone
from deeprank.models.embedding_model import ModelSettings


@pytest.fixture(scope="package", autouse=True)
def threads() -> Iterator[None]:
    """Child processes compute with as many threads as the test, so that they train the same weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        yield


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights with BatchNorm statistics that differ from the initial ones."""
    torch.manual_seed(11)
    model, _, _ = create_backbone("test_efficientnet", "none")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(model.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def model_settings(weights_file: Path) -> ModelSettings:
    return ModelSettings(
        backbone="test_efficientnet", weights=f"file:{weights_file}", embedding_dim=16, frozen_stages=0, pretrained_share=0
    )

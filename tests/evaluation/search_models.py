"""Small untrained models that weight a query by its familiarity."""

from pathlib import Path

import torch

from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import SearchModel, create_model
from deeprank.models.preprocessing import Preprocessing
from tests.conftest import SIZE, TINY

# Raw familiarities are cosines: all are below, or all are above these limits.
ALL_NOVEL, ALL_FAMILIAR = (2.0, 3.0), (-3.0, -2.0)


def save_search_model(folder: Path, limits: tuple[float, float]) -> Bundle:
    """Write a bundle with these limits of the raw familiarity."""
    settings = TINY.model_copy(update={"frozen_stages": 1, "pretrained_share": 0.4})
    torch.manual_seed(0)
    model = create_model(settings).eval()
    assert isinstance(model, SearchModel)
    model.familiarity.limits.copy_(torch.tensor(limits))
    with torch.no_grad():
        # The learned part of an untrained model is nearly the same for all images; without its common part it ranks them.
        head = model.finetuned.head
        head.weight -= head.weight.mean(dim=1, keepdim=True)
        head.bias.zero_()
    return Bundle.save(folder, model, settings, Preprocessing(size=SIZE), {})

"""Where a training starts: from what the ConvNet's features already tell, or from a net that was trained before."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import Embedder, EmbeddingModel, ModelSettings, SearchModel
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.training.losses import WeightedLosses
from deeprank.training.precision import InferenceModel, Precision


class _Features(Embedder):
    """The ConvNet without a head."""

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__()
        self.model, self.embedding_dim = model, model.width

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.upper(self.model.lower(self.model.pixels(images)))
        return features.float()


@torch.no_grad()
def init_head_from_pca(
    model: EmbeddingModel,
    loss: WeightedLosses,
    catalogue: Catalogue,
    rows: npt.NDArray[np.int64],
    classes: npt.NDArray[np.int64],
    size: int,
    precision: Precision,
) -> None:
    """Set a linear head to the principal components of the features, half whitened, and class vectors to the class means.

    A random head would first pull the ConvNet's features apart while it learns what they already tell.

    Args:
        net: whose head is set, where it is linear and stands directly on the ConvNet.
        loss: whose class vectors are set, where it keeps any.
        catalogue: of the images.
        rows, classes: (n,) of its frame, and the class number of each.
        size: pixels to look at them with.
        precision: of inference.

    """
    if not isinstance(model.head, nn.Linear) or model.head.in_features != model.width or len(model.hidden_layers):
        return
    found = embed_catalogue(InferenceModel(_Features(model), precision), Preprocessing(size=size), catalogue, rows, "looking at the images")
    features = torch.from_numpy(found).to(model.mean.device)
    length = features.norm(dim=1).mean()
    directions = normalize(features)
    center = directions.mean(0)
    _, singular, components = torch.linalg.svd(directions - center, full_matrices=False)
    # The rule of torch.linalg.matrix_rank: n centered images span n - 1 directions, and half whitening would blow up rounding errors.
    real = int((singular > singular[0] * max(features.shape) * torch.finfo(singular.dtype).eps).sum())
    kept = min(model.head.out_features, real)
    weight = components[:kept] / singular[:kept, None].sqrt()
    scale = linear(directions - center, weight).norm(dim=1).mean()
    model.head.weight[:kept] = weight / (length * scale)
    model.head.bias[:kept] = -(weight @ center) / scale
    # More dimensions than that: the rest stays random, but small and centered, so that it does not drown what is known.
    model.head.weight[kept:] /= 10
    model.head.bias[kept:] = -(model.head.weight[kept:] @ features.mean(0))
    _start_class_vectors(loss, normalize(model.head(features)), classes)


@torch.no_grad()
def init_from_bundle(
    model: EmbeddingModel,
    model_settings: ModelSettings,
    bundle: Bundle,
    loss: WeightedLosses,
    catalogue: Catalogue,
    rows: npt.NDArray[np.int64],
    classes: npt.NDArray[np.int64],
    size: int,
    precision: Precision,
) -> None:
    """Give a net the weights of a trained one, head included, and set class vectors to the class means of its embeddings.

    Args:
        net: of these settings, with the weights from before any training.
        network: the settings.
        bundle: the trained one.
        loss, catalogue, rows, classes, size, precision: as of `start_from_features`.

    Raises:
        ModelError: the bundle is damaged, or of another network, or its own training started from other weights.

    """
    before = ModelSettings.model_validate(bundle.config["started_from"])
    told = [
        f"{name} {getattr(before, name)}, now {getattr(model_settings, name)}"
        for name in ModelSettings.model_fields
        # These two change no weights that are trained.
        if name not in ("dropout", "pretrained_share") and getattr(before, name) != getattr(model_settings, name)
    ]
    if told:
        raise ModelError(f"a training of this network cannot start from {bundle.folder}: {'; '.join(told)}; start from scratch once")
    trained, _ = bundle.load()
    model.load_state_dict((trained.tuned if isinstance(trained, SearchModel) else trained).state_dict())
    found = embed_catalogue(InferenceModel(model, precision), Preprocessing(size=size), catalogue, rows, "looking at the images")
    _start_class_vectors(loss, torch.from_numpy(found).to(model.mean.device), classes)


def _start_class_vectors(loss: WeightedLosses, embeddings: Tensor, classes: npt.NDArray[np.int64]) -> None:
    number = torch.from_numpy(classes).to(embeddings.device)
    sums = torch.zeros(int(number.max()) + 1, embeddings.shape[1], device=embeddings.device).index_add_(0, number, embeddings)
    loss.start_from(normalize(sums))

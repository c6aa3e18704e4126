"""Where a training starts: from what the ConvNet's features already tell, or from a net that was trained before."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.model.bundle import Bundle
from deeprank.model.embedding import embed_catalogue
from deeprank.model.network import Embedder, EmbeddingNet, NetworkSettings, SearchNet
from deeprank.model.preprocessing import Preprocessing
from deeprank.training.losses import WeightedLosses
from deeprank.training.precision import InferenceNet, Precision


class _Features(Embedder):
    """The ConvNet without a head."""

    def __init__(self, net: EmbeddingNet) -> None:
        super().__init__()
        self.net, self.dimensions = net, net.width

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.net.upper(self.net.lower(self.net.pixels(images)))
        return features.float()


@torch.no_grad()
def start_from_features(
    net: EmbeddingNet,
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
        catalogue: of the photographs.
        rows, classes: (n,) of its frame, and the class number of each.
        size: pixels to look at them with.
        precision: of inference.

    """
    if not isinstance(net.head, nn.Linear) or net.head.in_features != net.width or len(net.hidden):
        return
    found = embed_catalogue(
        InferenceNet(_Features(net), precision), Preprocessing(size=size), catalogue, rows, "looking at the photographs"
    )
    features = torch.from_numpy(found).to(net.mean.device)
    length = features.norm(dim=1).mean()
    directions = normalize(features)
    centre = directions.mean(0)
    _, singular, components = torch.linalg.svd(directions - centre, full_matrices=False)
    # The rule of torch.linalg.matrix_rank: n centred photographs span n - 1 directions, and half whitening would blow up rounding errors.
    real = int((singular > singular[0] * max(features.shape) * torch.finfo(singular.dtype).eps).sum())
    kept = min(net.head.out_features, real)
    weight = components[:kept] / singular[:kept, None].sqrt()
    scale = linear(directions - centre, weight).norm(dim=1).mean()
    net.head.weight[:kept] = weight / (length * scale)
    net.head.bias[:kept] = -(weight @ centre) / scale
    # More dimensions than that: the rest stays random, but small and centred, so that it does not drown what is known.
    net.head.weight[kept:] /= 10
    net.head.bias[kept:] = -(net.head.weight[kept:] @ features.mean(0))
    _start_class_vectors(loss, normalize(net.head(features)), classes)


@torch.no_grad()
def start_from_bundle(
    net: EmbeddingNet,
    network: NetworkSettings,
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
    before = NetworkSettings.model_validate(bundle.config["started_from"])
    told = [
        f"{name} {getattr(before, name)}, now {getattr(network, name)}"
        for name in NetworkSettings.model_fields
        # These two change no weights that are trained.
        if name not in ("dropout", "general") and getattr(before, name) != getattr(network, name)
    ]
    if told:
        raise ModelError(f"a training of this network cannot start from {bundle.folder}: {'; '.join(told)}; start from scratch once")
    trained, _ = bundle.load()
    net.load_state_dict((trained.tuned if isinstance(trained, SearchNet) else trained).state_dict())
    found = embed_catalogue(InferenceNet(net, precision), Preprocessing(size=size), catalogue, rows, "looking at the photographs")
    _start_class_vectors(loss, torch.from_numpy(found).to(net.mean.device), classes)


def _start_class_vectors(loss: WeightedLosses, embeddings: Tensor, classes: npt.NDArray[np.int64]) -> None:
    number = torch.from_numpy(classes).to(embeddings.device)
    sums = torch.zeros(int(number.max()) + 1, embeddings.shape[1], device=embeddings.device).index_add_(0, number, embeddings)
    loss.start_from(normalize(sums))

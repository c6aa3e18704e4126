"""Initial weights of a training: a head from the principal components of the features, or the weights of a trained model."""

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
from deeprank.row_numbers import CatalogueRows
from deeprank.training.data import TrainingImages
from deeprank.training.losses import WeightedLosses
from deeprank.training.precision import InferenceModel, Precision

# Settings that may differ from those of the bundle, because they change no weights that are trained.
MAY_DIFFER = ("dropout", "pretrained_share")
# Features of 1,280 dimensions of so many images take 256 MB; more would hardly move the components.
MAX_SAMPLE = 50_000
PROGRESS = "embedding the training images"


class _Backbone(Embedder):
    """The backbone of a model, without its head."""

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__()
        self.model, self.embedding_dim = model, model.num_features

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.trainable(self.model.frozen(self.model.normalize_pixels(images)))
        return features.float()


@torch.no_grad()
def init_head_from_pca(
    model: EmbeddingModel, criterion: WeightedLosses, catalogue: Catalogue, images: TrainingImages, size: int, precision: Precision
) -> None:
    """Set a linear head to the half-whitened principal components of the features, and class weights to the class means.

    A random head would first change the features while it learns what they already contain. A head that is not linear, or whose
    input is not the features alone, stays as it is.

    Args:
        model: whose head is set.
        criterion: whose class weights (proxies) are set, if it has any.
        catalogue: that holds the images.
        images: that are trained on.
        size: pixels per side of the images.
        precision: of the inference.

    """
    if not isinstance(model.head, nn.Linear) or model.head.in_features != model.num_features or len(model.hidden_layers):
        return
    backbone = InferenceModel(_Backbone(model), precision)
    sample = _sample_of_each_class(images.classes)
    embedded = embed_catalogue(backbone, Preprocessing(size=size), catalogue, CatalogueRows(images.rows[sample]), PROGRESS)
    features = torch.from_numpy(embedded).to(model.mean.device)
    mean_length = features.norm(dim=1).mean()
    directions = normalize(features)
    center = directions.mean(0)
    _, singular_values, components = torch.linalg.svd(directions - center, full_matrices=False)
    # As torch.linalg.matrix_rank: n centered images span n - 1 directions, and half-whitening would amplify rounding errors.
    tolerance = singular_values[0] * max(features.shape) * torch.finfo(singular_values.dtype).eps
    num_components = min(model.head.out_features, int((singular_values > tolerance).sum()))
    weight = components[:num_components] / singular_values[:num_components, None].sqrt()
    scale = linear(directions - center, weight).norm(dim=1).mean()
    model.head.weight[:num_components] = weight / (mean_length * scale)
    model.head.bias[:num_components] = -(weight @ center) / scale
    # Further dimensions stay random, but small and centered, so that the components dominate.
    model.head.weight[num_components:] /= 10
    model.head.bias[num_components:] = -(model.head.weight[num_components:] @ features.mean(0))
    _init_class_vectors(criterion, normalize(model.head(features)), images.classes[sample])


@torch.no_grad()
def init_from_bundle(
    model: EmbeddingModel,
    model_settings: ModelSettings,
    bundle: Bundle,
    criterion: WeightedLosses,
    catalogue: Catalogue,
    images: TrainingImages,
    size: int,
    precision: Precision,
) -> None:
    """Load the weights of a trained model, its head included, and set class weights to the class means of its embeddings.

    Args:
        model: with pretrained weights.
        model_settings: of the model.
        bundle: the trained model.
        criterion, catalogue, images, size, precision: as for `init_head_from_pca`.

    Raises:
        ModelError: the bundle is damaged, or its architecture or its pretrained weights differ from those of the model.

    """
    bundle_settings = ModelSettings.model_validate(bundle.config["initial_model"])
    differences = [
        f"{name} is {getattr(model_settings, name)}, in the bundle {getattr(bundle_settings, name)}"
        for name in ModelSettings.model_fields
        if name not in MAY_DIFFER and getattr(bundle_settings, name) != getattr(model_settings, name)
    ]
    if differences:
        raise ModelError(
            f"train.model: a training cannot continue from {bundle.folder}: {'; '.join(differences)}; train once with init: pretrained"
        )
    trained, _ = bundle.load()
    model.load_state_dict((trained.finetuned if isinstance(trained, SearchModel) else trained).state_dict())
    sample = _sample_of_each_class(images.classes)
    rows = CatalogueRows(images.rows[sample])
    embeddings = embed_catalogue(InferenceModel(model, precision), Preprocessing(size=size), catalogue, rows, PROGRESS)
    _init_class_vectors(criterion, torch.from_numpy(embeddings).to(model.mean.device), images.classes[sample])


def _sample_of_each_class(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the indices of about MAX_SAMPLE images, ascending: of each class the same share, and one image at least."""
    order = np.argsort(classes, kind="stable")
    if len(order) <= MAX_SAMPLE:
        return np.arange(len(order))
    step = -(-len(order) // MAX_SAMPLE)
    # Of each class every step-th image, from its first one.
    rank = np.arange(len(order)) - np.searchsorted(classes[order], classes[order])
    return np.sort(order[rank % step == 0])


def _init_class_vectors(criterion: WeightedLosses, embeddings: Tensor, classes: npt.NDArray[np.int64]) -> None:
    class_numbers = torch.from_numpy(classes).to(embeddings.device)
    sums = torch.zeros(int(class_numbers.max()) + 1, embeddings.shape[1], device=embeddings.device)
    criterion.init_class_vectors(normalize(sums.index_add_(0, class_numbers, embeddings)))

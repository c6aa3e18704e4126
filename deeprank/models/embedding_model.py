"""Models that turn images into embeddings of unit length: the model that is trained, and the model that searches."""

import copy
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, normalize

from deeprank.errors import ConfigError
from deeprank.models.backbone import create_backbone, fold_norms, split_stages
from deeprank.models.familiarity import Familiarity
from deeprank.settings import Settings

# Output size of the projection: with a learned embedding of 128, a search embedding has 768 dimensions.
PROJECTION_DIM = 640
# Share of the learned part in an unfamiliar query.
MIN_LEARNED_SHARE = 0.05

# From embeddings (n, d) to queries (n, d).
AsQueries = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


class ModelSettings(Settings):
    """Architecture and initial weights of a model.

    Attributes:
        backbone: any timm model.
        weights: initial weights: package, hub, file:PATH or none; see `create_backbone`.
        embedding_dim: size of the learned embedding; with pretrained_share above 0 the search embedding is longer. 0: the features of
            the backbone are the embedding (the frozen baseline).
        frozen_stages: number of first stages of the backbone that are not trained (1: the stem; n: the stem and n - 1 more).
        hidden_dims: sizes of fully connected layers with ReLU and dropout between backbone and embedding (the paper: 4096, 4096).
        dropout: dropout probability after each of these layers.
        multiscale: add two shallow branches that get the image at low resolution (the paper).
        pretrained_share: share of the search embedding for backbone features from before training; they help on classes that were not
            trained on. An unfamiliar query counts them more, up to 0.95. 0: none.

    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "package"
    embedding_dim: int = Field(128, ge=0)
    frozen_stages: int = Field(3, ge=0)
    hidden_dims: tuple[int, ...] = ()
    dropout: float = Field(0.0, ge=0, lt=1)
    multiscale: bool = False
    pretrained_share: float = Field(0.2, ge=0, lt=1)


class LowResolutionBranches(nn.Module):
    """The paper's two shallow branches on the image subsampled 4:1 and 8:1.

    Each branch has 96 filters of 8 x 8, pooled to 4 x 4; its output has unit length. The subsampled images have 57 and 29 pixels
    a side as in the paper, for any input size.

    Source: Wang et al. 2014, figure 3.
    """

    num_features = 2 * 96 * 4 * 4

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 96, 8, stride=4, padding=4), nn.ReLU(), nn.MaxPool2d(3, stride=4), nn.Flatten())
        self.coarse = nn.Sequential(nn.Conv2d(3, 96, 8, stride=4, padding=4), nn.ReLU(), nn.MaxPool2d(7, 2, padding=3), nn.Flatten())

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (n, num_features) of normalized pixels (n, 3, s, s)."""
        # With antialiasing every pixel counts; a stride larger than the kernel would skip most pixels.
        subsampled = [interpolate(pixels, size=(side, side), mode="bilinear", antialias=True) for side in (57, 29)]
        branches = (self.fine, self.coarse)
        return torch.cat([normalize(branch(image)) for branch, image in zip(branches, subsampled, strict=True)], dim=1)


class Embedder(nn.Module):
    """Base of modules that turn images, uint8 (n, 3, s, s), into embeddings, float32 (n, embedding_dim)."""

    embedding_dim: int

    def query_familiarity(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return how familiar images are by their embeddings (n, d): (n,), 0, unlike any train image, to 1."""
        return np.ones(len(embeddings), dtype=np.float32)

    def query_scale(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the factor of each element of embeddings (n, d) in a query, broadcastable to (n, d)."""
        return np.ones((len(embeddings), 1), dtype=np.float32)

    def as_queries(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return embeddings (n, d) as queries: their inner product with an image's embedding is the similarity, at most 1.

        The squared distance, 2 - 2 x similarity, is the weighted mean of the squared distances of the parts.
        """
        queries: npt.NDArray[np.float32] = embeddings * self.query_scale(embeddings)
        return queries

    @property
    def query_forms(self) -> tuple[AsQueries, ...]:
        """The functions from embeddings to queries that an index has to answer."""
        return (self.as_queries,)

    def query_distances(self, queries: npt.NDArray[np.float32], images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the distance (n,), 0 to 2, of each query's embedding (n, d) to the image's embedding (n, d) in the same row."""
        squares = (queries.astype(np.float64) - images) ** 2 * self.query_scale(queries)
        distances: npt.NDArray[np.float64] = np.sqrt(squares.sum(axis=1))
        return distances


class EmbeddingModel(Embedder):
    """The model that is trained: images, uint8 (n, 3, s, s), to embeddings of unit length, float32 (n, embedding_dim).

    Attributes:
        frozen: the stages of the backbone whose weights are not trained.
        trainable: the other stages; images pass `frozen`, then `trainable`.
        num_features: number of pooled features of the backbone.
        hidden_layers: fully connected layers between backbone and head; may be empty.
        low_resolution: the low-resolution branches of a multiscale model, else None.
        head: the linear layer to the embedding; identity for embedding_dim 0.

    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        backbone, mean, std = create_backbone(settings.backbone, settings.weights)
        stages = split_stages(fold_norms(backbone))
        if settings.embedding_dim and settings.frozen_stages >= len(stages):
            raise ConfigError(
                f"model.frozen_stages: {settings.frozen_stages} leaves no stage to train: {settings.backbone} has {len(stages)} stages; "
                "lower it"
            )
        self.frozen = nn.Sequential(*stages[: settings.frozen_stages])
        self.trainable = nn.Sequential(*stages[settings.frozen_stages :])
        self.frozen.requires_grad_(False)
        self.eval()
        with torch.no_grad():
            self.num_features = in_features = self.trainable(self.frozen(torch.zeros(1, 3, 96, 96))).shape[1]
        self.hidden_layers = nn.Sequential()
        for hidden_dim in settings.hidden_dims:
            self.hidden_layers.extend([nn.Linear(in_features, hidden_dim), nn.ReLU(), nn.Dropout(settings.dropout)])
            in_features = hidden_dim
        self.low_resolution = LowResolutionBranches() if settings.multiscale else None
        in_features += LowResolutionBranches.num_features if settings.multiscale else 0
        self.head: nn.Module = nn.Linear(in_features, settings.embedding_dim) if settings.embedding_dim else nn.Identity()
        self.embedding_dim = settings.embedding_dim or in_features
        # Images have pixels in 0..255, so mean and deviation are multiplied by 255.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def train(self, mode: bool = True) -> "EmbeddingModel":
        """Set training mode as `nn.Module.train` does; norms that could not be folded stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def normalize_pixels(self, images: Tensor) -> Tensor:
        """Return normalized pixels of a batch; `images` may be uint8 or float in 0..255."""
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def embed_features(self, pixels: Tensor, features: Tensor) -> Tensor:
        """Return the embeddings for normalized pixels (n, 3, s, s) and their pooled backbone features (n, num_features)."""
        outputs = self.hidden_layers(features)
        if self.low_resolution is not None:
            outputs = torch.cat([normalize(outputs.float()), self.low_resolution(pixels)], dim=1)
        return normalize(self.head(outputs).float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        pixels = self.normalize_pixels(images)
        return self.embed_features(pixels, self.trainable(self.frozen(pixels)))


class Projection(nn.Module):
    """Project backbone features at random to fewer dimensions, and scale them to unit length.

    The projection preserves angles approximately; the rows of its matrix are orthonormal. It knows no collection: the principal axes
    of one lose more of another kind.

    Source: Johnson and Lindenstrauss 1984.
    """

    matrix: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        noise = torch.randn(num_features, min(PROJECTION_DIM, num_features), generator=torch.Generator().manual_seed(0))
        self.register_buffer("matrix", torch.linalg.qr(noise)[0].T.contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, PROJECTION_DIM or fewer) of features (n, num_features)."""
        return normalize(linear(features.float(), self.matrix), dim=1)


class SearchModel(Embedder):
    """The model that searches: the learned embedding beside projected backbone features from before training.

    Both versions of the backbone share the frozen stages. The squared distance of two images is the sum of the squared distances of
    the two parts, each multiplied by its share. In a query, the share of the learned part falls with its familiarity: what was
    learned helps on images like those that were trained on, and misleads on others.

    Attributes:
        finetuned: the trained model.
        pretrained: the trainable stages of the backbone with their weights from before training.
        projection: of the features of `pretrained`.
        pretrained_share: share of the projection.
        familiarity: scale of how familiar the projected features of an image are.

    """

    def __init__(self, finetuned: EmbeddingModel, pretrained: nn.Module, pretrained_share: float) -> None:
        super().__init__()
        self.finetuned, self.pretrained, self.pretrained_share = finetuned, pretrained.requires_grad_(False), pretrained_share
        self.projection = Projection(finetuned.num_features)
        self.familiarity = Familiarity(self.projection.matrix.shape[0])
        self.embedding_dim = finetuned.embedding_dim + self.projection.matrix.shape[0]

    @torch.inference_mode()
    def fit_familiarity(self, batches: Iterable[Tensor]) -> None:
        """Set the scale of familiarity by batches of train images, uint8 (n, 3, s, s)."""
        self.familiarity.fit(torch.cat([self.projection(self.pretrained(self._shared_features(images)[1])) for images in batches]))

    def pretrained_embeddings(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the columns of embeddings (n, d) that come from the pretrained features, scaled to unit length."""
        columns = embeddings[:, self.finetuned.embedding_dim :]
        scaled: npt.NDArray[np.float32] = columns / np.linalg.norm(columns, axis=1, keepdims=True).clip(1e-12)
        return scaled

    def query_familiarity(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the familiarity (n,) of embeddings (n, d), 0 to 1."""
        features = torch.from_numpy(self.pretrained_embeddings(embeddings)).to(self.familiarity.reference.device)
        values: npt.NDArray[np.float32] = self.familiarity(features).cpu().numpy()
        return values

    def query_scale(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the factor (n, d) of each element of embeddings (n, d) in a query."""
        return self._scale(self.query_familiarity(embeddings))

    @property
    def query_forms(self) -> tuple[AsQueries, ...]:
        """The functions from embeddings to queries: by their familiarity, and as if all were novel."""
        return self.as_queries, lambda embeddings: embeddings * self._scale(np.zeros(len(embeddings), dtype=np.float32))

    def _scale(self, familiarity: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        learned_share = 1 - self.pretrained_share
        unfamiliar_share = min(MIN_LEARNED_SHARE, learned_share)
        query_share = unfamiliar_share + (learned_share - unfamiliar_share) * familiarity[:, None]
        factors = query_share / learned_share, (1 - query_share) / self.pretrained_share
        sizes = self.finetuned.embedding_dim, self.projection.matrix.shape[0]
        return np.concatenate([np.repeat(factor, size, axis=1) for factor, size in zip(factors, sizes, strict=True)], axis=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        pixels, shared = self._shared_features(images)
        learned = self.finetuned.embed_features(pixels, self.finetuned.trainable(shared))
        parts = ((1 - self.pretrained_share, learned), (self.pretrained_share, self.projection(self.pretrained(shared))))
        return torch.cat([share**0.5 * part for share, part in parts], dim=1)

    def _shared_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalized pixels of a batch, and their features after the frozen stages."""
        pixels = self.finetuned.normalize_pixels(images.to(self.finetuned.mean.device))
        return pixels, self.finetuned.frozen(pixels)


def create_model(settings: ModelSettings) -> Embedder:
    """Return the model that searches: an EmbeddingModel, or a SearchModel if `pretrained_share` is above 0."""
    model = EmbeddingModel(settings)
    return SearchModel(model, copy.deepcopy(model.trainable), settings.pretrained_share) if settings.pretrained_share else model

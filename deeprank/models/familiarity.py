"""Familiarity: how much an image resembles the train images, in features that training does not change."""

import torch
from torch import Tensor, nn

# Train images that familiarity is measured against; comparing a query with all of them takes 0.2 ms.
MAX_REFERENCE_IMAGES = 2000
NUM_NEIGHBORS = 5
# Quantile of the raw values of train images that is 1 on the scale; the lowest few are outliers.
FAMILIAR_QUANTILE = 0.01
# Distance of 0 from 1 on the scale, as a share of the distance of 1 from the median.
RAMP_SHARE = 0.5
# Reference images that are all equal have no spread, and the cosine of two of them is 1 up to rounding.
MIN_RAMP, ROUNDING = 0.01, 1e-5


class Familiarity(nn.Module):
    """A scale of how familiar an image is: 0, unlike any train image, to 1, like a train image.

    The raw value of an image is the mean cosine of its features to those of its 5 nearest reference images, a sample of the train
    images. The scale is set by the raw values of the reference images, each compared with all others: 1 is their 1 % quantile, and
    0 is half as far below it as it is below their median.

    Attributes:
        reference: (r, d) features of the reference images, of unit length.
        limits: (2,) the raw values that are 0 and 1 on the scale.

    """

    reference: Tensor
    limits: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(1, num_features))
        # Before `fit` every image is familiar.
        self.register_buffer("limits", torch.tensor([-3.0, -2.0]))

    @torch.inference_mode()
    def fit(self, features: Tensor) -> None:
        """Set reference and limits by the features (r, d) of reference images, of unit length."""
        self.reference = features.clone()
        # An image is not compared with itself.
        raw = _mean_of_highest((features @ features.T).fill_diagonal_(-1), max(1, len(features) - 1))
        familiar, median = torch.quantile(raw, FAMILIAR_QUANTILE), torch.quantile(raw, 0.5)
        ramp = (RAMP_SHARE * (median - familiar)).clamp_min(MIN_RAMP)
        self.limits.copy_(torch.stack([familiar - ramp, familiar - ROUNDING]))

    @torch.inference_mode()
    def raw(self, features: Tensor) -> Tensor:
        """Return the mean cosine (n,) of features (n, d), of unit length, to those of their nearest reference images."""
        return _mean_of_highest(features @ self.reference.T, len(self.reference))

    @torch.inference_mode()
    def forward(self, features: Tensor) -> Tensor:
        """Return the familiarity (n,) of features (n, d) of unit length."""
        low, high = self.limits
        return ((self.raw(features) - low) / (high - low)).clamp(0, 1)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: object) -> None:
        # The number of reference images is not known before.
        self.reference = torch.empty_like(state_dict[f"{prefix}reference"])
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _mean_of_highest(cosines: Tensor, count: int) -> Tensor:
    """Return the mean (n,) of the NUM_NEIGHBORS highest cosines of each row of (n, r), or of `count` if that is less."""
    return cosines.topk(min(NUM_NEIGHBORS, count), dim=1).values.mean(1)

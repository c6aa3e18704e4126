"""Whether a new release becomes the champion."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from deeprank.evaluation.intervals import Estimate
from deeprank.settings import Settings

METRIC = "fine.recall_at_1"


class PromotionSettings(Settings):
    """What a release must reach.

    Attributes:
        floor: recall@1 that the first champion needs at least.
        margin: by how much a challenger's recall@1 must exceed the champion's.

    """

    floor: float = Field(0.5, ge=0, le=1)
    margin: float = Field(0.0, ge=0, le=1)


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and the reason in words and figures."""

    promoted: bool
    reason: str


def decide(challenger: Mapping[str, Estimate], champion: Mapping[str, Estimate] | None, settings: PromotionSettings) -> Decision:
    """Compare a challenger's metrics with the champion's, or with the floor where there is no champion."""
    new = challenger[METRIC].value
    if champion is None:
        verb = "reaches" if new >= settings.floor else "does not reach"
        return Decision(new >= settings.floor, f"first release: recall@1 {new:.4f} {verb} the floor {settings.floor:.4f}")
    old = champion[METRIC].value
    promoted = new > old + settings.margin
    verb = "exceeds" if promoted else "does not exceed"
    return Decision(promoted, f"recall@1 {new:.4f} {verb} the champion's {old:.4f} by more than {settings.margin:.4f}")

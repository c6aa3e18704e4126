"""What answers: the release that is served now, and what requests share."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from pydantic import Field
from torch import Tensor

from deeprank.data.images import stored_jpeg
from deeprank.evaluation.evaluation import Evaluation
from deeprank.evaluation.intervals import Estimate
from deeprank.registry.canary import check_canary
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.serving.batching import Batcher, BatchSettings, NotReadyError
from deeprank.serving.browse import Browser
from deeprank.serving.metrics import ServiceMetrics
from deeprank.serving.middleware import Limits, check_pixels
from deeprank.settings import Settings


def utc_now() -> str:
    """Return the time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class AliasWatcherSettings(Settings):
    """How the registry is watched.

    Attributes:
        every: seconds between two looks.

    """

    every: float = Field(5.0, gt=0)


class ServeSettings(Settings):
    """How to serve."""

    limits: Limits = Limits()
    batching: BatchSettings = BatchSettings()
    follow: AliasWatcherSettings = AliasWatcherSettings()


@dataclass(frozen=True)
class Served:
    """A release, loaded and checked, and what is known of it; a request takes one and answers wholly from it.

    Attributes:
        searcher: answers.
        model: models:/NAME/VERSION, or the name of its folder.
        version: in the registry; None: it is not from there.
        aliases: that it had when the registry was last asked.
        tags: of the version.
        checked: whether it held a canary, and answered it as when it was registered.
        since: when it was taken, UTC.

    """

    searcher: Searcher
    model: str
    version: int | None = None
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    checked: bool = False
    since: str = field(default_factory=utc_now)

    @classmethod
    def load(
        cls,
        release: Release,
        model: str,
        version: int | None = None,
        tags: dict[str, str] | None = None,
        aliases: tuple[str, ...] = (),
    ) -> "Served":
        """Load a release and check it: every file by its checksum, index against model, neighbors against the canary.

        Raises:
            ModelError: it is damaged or answers otherwise than when it was registered.

        """
        searcher = Searcher(release)
        _ = searcher.model, searcher.index.rows
        served = cls(searcher, model, version, aliases, tags or {}, checked=check_canary(searcher))
        _ = served.metrics
        return served

    @cached_property
    def browser(self) -> Browser:
        """Classes, samples and clusters."""
        return Browser(self.searcher.index)

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """What the evaluation found; nothing where it was never evaluated."""
        folder: Path = self.searcher.release.folder / "evaluation"
        return Evaluation.load(folder).metrics if folder.is_dir() else {}


@dataclass(frozen=True)
class Refused:
    """A release that the alias points to and that is not served, with the reason."""

    version: int
    reason: str
    at: str


@dataclass(frozen=True)
class RegistryState:
    """What came of the last look at the registry."""

    reachable: bool
    looked_at: str
    error: str = ""


class Service:
    """The release that answers now, and the threads that embed for all requests."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.meters = ServiceMetrics()
        self.batcher = Batcher(settings.batching, self._prepare, self.meters.batch.observe)
        self.meters.waiting.set_function(lambda: self.batcher.waiting)
        self.served: Served | None = None
        self.refused: Refused | None = None
        self.registry: RegistryState | None = None

    def current(self) -> Served:
        """Return the release that answers now.

        Raises:
            NotReadyError: there is none yet.

        """
        served = self.served
        if served is None:
            raise NotReadyError("no release is loaded yet; /readyz says why")
        return served

    def take(self, served: Served) -> None:
        """Answer with another release from the next request on; the one before goes with its last request."""
        self.served, self.refused = served, None
        self.meters.version.set(served.version or 0)
        self.meters.swaps.inc()

    def refuse(self, version: int, reason: str) -> None:
        """Say that a release is not taken, and why."""
        self.refused = Refused(version, reason, utc_now())
        self.meters.refused.inc()

    def stored(self, image: bytes) -> bytes:
        """Return an image file in the form in which images are stored.

        Raises:
            DataError: the bytes are no image that can be read.

        """
        check_pixels(image, self.settings.limits.pixels)
        return stored_jpeg(image)

    def _prepare(self, searcher: Searcher, image: bytes) -> Tensor:
        return searcher.model[1](self.stored(image))

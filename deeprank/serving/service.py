"""The state of the service: the loaded release and what all requests share."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from pydantic import Field
from torch import Tensor

from deeprank.data.images import to_stored_jpeg
from deeprank.evaluation.evaluation import Evaluation
from deeprank.evaluation.intervals import Estimate
from deeprank.registry.canary import check_canary
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.serving.batching import Batcher, BatchSettings
from deeprank.serving.catalogue_browser import CatalogueBrowser
from deeprank.serving.errors import NotReadyError
from deeprank.serving.metrics import ServiceMetrics
from deeprank.serving.middleware import Limits, check_pixels
from deeprank.settings import Settings


def utc_now() -> str:
    """Return the current time, UTC, in ISO format with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class AliasWatcherSettings(Settings):
    """How the registry is polled.

    Attributes:
        poll_interval_s: seconds between two polls.

    """

    poll_interval_s: float = Field(5.0, gt=0)


class ServeSettings(Settings):
    """Settings of `deeprank serve`.

    Attributes:
        limits: limits of requests.
        batching: how requests share the CPU cores.
        alias_watcher: how the registry is polled.

    """

    limits: Limits = Limits()
    batching: BatchSettings = BatchSettings()
    alias_watcher: AliasWatcherSettings = AliasWatcherSettings()


@dataclass(frozen=True)
class LoadedRelease:
    """A loaded and checked release; a request uses the same one from start to end.

    Attributes:
        searcher: embeds and searches.
        model: models:/NAME/VERSION, or the name of the release's folder.
        version: version in the registry; None if the release is not from the registry.
        aliases: aliases of the version at the last poll.
        tags: tags of the version.
        canary_passed: whether the release has a canary and its neighbors are the same as at registration.
        since: when it was loaded, UTC.

    """

    searcher: Searcher
    model: str
    version: int | None = None
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    canary_passed: bool = False
    since: str = field(default_factory=utc_now)

    @classmethod
    def load(
        cls,
        release: Release,
        model: str,
        version: int | None = None,
        tags: dict[str, str] | None = None,
        aliases: tuple[str, ...] = (),
    ) -> "LoadedRelease":
        """Load a release and check it: checksums of its files, the index against the model, and the canary.

        Args:
            release: the release to load.
            model: models:/NAME/VERSION, or the name of the release's folder.
            version: version in the registry; None if the release is not from the registry.
            tags: tags of the version.
            aliases: aliases of the version.

        Raises:
            ModelError: the release is damaged, or the neighbors of its canary differ from those at registration.

        """
        searcher = Searcher(release)
        _ = searcher.model, searcher.index.rows
        loaded = cls(searcher, model, version, aliases, tags or {}, canary_passed=check_canary(searcher))
        _ = loaded.metrics
        return loaded

    @cached_property
    def browser(self) -> CatalogueBrowser:
        """Classes, samples and clusters of the index."""
        return CatalogueBrowser(self.searcher.index)

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """Metrics of the release's evaluation; empty if it has none."""
        folder: Path = self.searcher.release.folder / "evaluation"
        return Evaluation.load(folder).metrics if folder.is_dir() else {}


@dataclass(frozen=True)
class RefusedRelease:
    """A release that the alias points to and that the service refuses.

    Attributes:
        version: version in the registry.
        reason: why it is refused.
        refused_at: when, UTC.

    """

    version: int
    reason: str
    refused_at: str


@dataclass(frozen=True)
class RegistryStatus:
    """The result of the last poll of the registry.

    Attributes:
        reachable: whether the registry responded.
        checked_at: when, UTC.
        error: why there is no version to serve; empty if the alias was found.

    """

    reachable: bool
    checked_at: str
    error: str = ""


class Service:
    """The loaded release, and the threads that embed images for all requests.

    Attributes:
        loaded: the release in service; None until one is loaded.
        refused: the release that the alias points to, if the service refuses it.
        registry: result of the last poll; None if the registry is not polled.

    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = ServiceMetrics()
        self.batcher = Batcher(settings.batching, self._preprocess, self.metrics.batch_size.observe)
        self.metrics.queue_size.set_function(lambda: self.batcher.admission.queue_size)
        self.loaded: LoadedRelease | None = None
        self.refused: RefusedRelease | None = None
        self.registry: RegistryStatus | None = None

    def current(self) -> LoadedRelease:
        """Return the release in service.

        Raises:
            NotReadyError: no release is loaded yet.

        """
        loaded = self.loaded
        if loaded is None:
            raise NotReadyError("no release is loaded yet; /readyz gives the reason")
        return loaded

    def swap(self, loaded: LoadedRelease) -> None:
        """Put a release into service from the next request on; the previous one is freed after its last request."""
        self.loaded, self.refused = loaded, None
        self.metrics.release_version.set(loaded.version or 0)
        self.metrics.releases_loaded.inc()

    def refuse(self, version: int, reason: str) -> None:
        """Record that a version is refused, and why."""
        self.refused = RefusedRelease(version, reason, utc_now())
        self.metrics.releases_refused.inc()

    def to_stored_jpeg(self, image: bytes) -> bytes:
        """Return an image file in the form in which the catalogue stores images.

        Raises:
            ImageTooLargeError: the image has too many pixels.
            DataError: the image cannot be read.

        """
        check_pixels(image, self.settings.limits.max_pixels)
        return to_stored_jpeg(image)

    def _preprocess(self, searcher: Searcher, image: bytes) -> Tensor:
        return searcher.preprocessing(self.to_stored_jpeg(image))

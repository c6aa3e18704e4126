"""Polling of an alias in the registry: its release is loaded and checked before it replaces the one in service."""

import dataclasses
import logging
import threading

from mlflow.entities.model_registry import ModelVersion

from deeprank.errors import DeepRankError, ModelError
from deeprank.registry.model_uri import ModelUri
from deeprank.registry.releases import Release, fetch_release, find_version, open_release, open_version
from deeprank.serving.service import LoadedRelease, RegistryStatus, Service, utc_now

log = logging.getLogger("deeprank.serving")


class AliasWatcher:
    """Keeps a service at the release of a model URI.

    Args:
        service: the service whose release is replaced.
        model: models:/NAME@ALIAS is polled; models:/NAME/VERSION and the folder of a release are loaded once.

    """

    def __init__(self, service: Service, model: str) -> None:
        self._service, self.model = service, model
        uri = ModelUri.parse(model)
        self.name, self.alias = (uri.name, uri.alias) if uri else ("", "")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alias-watcher", daemon=True)

    def start(self) -> None:
        """Load the release, and start to poll if the URI has an alias.

        Raises:
            ModelError: a fixed release is missing or damaged; an alias may be missing, it can be set later.

        """
        if not self.alias:
            self._service.swap(load_fixed(self.model))
            return
        self.poll()
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def poll(self) -> None:
        """Read the alias once; if it points to another version than before, load and check that release and put it into service."""
        service = self._service
        try:
            version = find_version(self.name, self.alias)
        except Exception as error:  # the exception depends on the registry's store
            self._set_unreachable(error)
            return
        if version is None:
            self._set_reachable(f"{self.name} has no alias {self.alias}")
            return
        self._set_reachable()
        number, loaded = int(version.version), service.loaded
        if loaded is not None and loaded.version == number:
            service.refused = None
            if loaded.aliases != tuple(version.aliases):
                service.loaded = dataclasses.replace(loaded, aliases=tuple(version.aliases))
        # While no release is loaded, a refused one is tried again: its catalogue may be available by now.
        elif loaded is None or service.refused is None or service.refused.version != number:
            self._load(version, number)

    def _load(self, version: ModelVersion, number: int) -> None:
        try:
            folder = fetch_release(version)
        except Exception as error:  # the store became unreachable: this is no fault of the release
            self._set_unreachable(error)
            return
        try:
            loaded = load_version(version, open_version(version))
        except Exception as error:  # no failure of a new release may end the one in service
            known = isinstance(error, DeepRankError)
            reason = str(error).replace(f"{folder}/", "") if known else f"{type(error).__name__} while loading"
            refused = self._service.refused
            if refused is None or (refused.version, refused.reason) != (number, reason):
                log.exception("Refused version %d of %s", number, self.name)
                self._service.refuse(number, reason)
            return
        self._service.swap(loaded)
        log.info("Serving version %d of %s", number, self.name)

    def _run(self) -> None:
        while not self._stop.wait(self._service.settings.alias_watcher.poll_interval_s):
            self.poll()

    def _set_unreachable(self, error: Exception) -> None:
        if self._service.registry is None or self._service.registry.reachable:
            log.warning("Registry unreachable; still serving the loaded release: %s", error)
        self._service.registry = RegistryStatus(False, utc_now(), f"{type(error).__name__} while reading the registry")
        self._service.metrics.registry_reachable.set(0)

    def _set_reachable(self, error: str = "") -> None:
        self._service.registry = RegistryStatus(True, utc_now(), error)
        self._service.metrics.registry_reachable.set(1)


def load_version(version: ModelVersion, release: Release) -> LoadedRelease:
    """Load and check a release of the registry.

    Raises:
        ModelError: the release is damaged.

    """
    model = str(ModelUri(version.name, str(version.version)))
    return LoadedRelease.load(release, model, int(version.version), dict(version.tags), tuple(version.aliases))


def load_fixed(model: str) -> LoadedRelease:
    """Load and check the release of a model URI without an alias, or of a folder.

    Raises:
        ModelError: the release is missing or damaged.

    """
    release, uri = open_release(model), ModelUri.parse(model)
    if uri is None:
        return LoadedRelease.load(release, release.folder.resolve().name)
    version = find_version(uri.name, uri.version_or_alias)
    if version is None:
        raise ModelError(f"{model} is no longer in the registry")
    return load_version(version, release)

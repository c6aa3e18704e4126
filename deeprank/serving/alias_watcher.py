"""Following an alias: the release that it points to is loaded beside the one that answers, checked, and only then taken."""

import dataclasses
import logging
import threading

from mlflow.entities.model_registry import ModelVersion

from deeprank.errors import DeepRankError, ModelError
from deeprank.registry.releases import Release, fetch, find, open_release
from deeprank.serving.service import RegistryState, Served, Service, utc_now

log = logging.getLogger("deeprank.serving")


class AliasWatcher:
    """Keeps a service at the release that a model's address names.

    Args:
        service: that answers.
        model: models:/NAME@ALIAS is followed; models:/NAME/VERSION and a release's folder stay.

    """

    def __init__(self, service: Service, model: str) -> None:
        self._service, self.model = service, model
        name, _, wanted = model.removeprefix("models:/").replace("@", "/").partition("/")
        self.name, self.alias = (name, wanted) if model.startswith("models:/") and not wanted.isdigit() else ("", "")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="follow", daemon=True)

    def start(self) -> None:
        """Take the release, and from then on look again and again.

        Raises:
            ModelError: a fixed release is not there or is damaged; an alias may come to point to one later.

        """
        if not self.alias:
            self._service.take(load_fixed(self.model))
            return
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def look(self) -> None:
        """Ask the registry once where the alias points; if elsewhere than before, load and check that release and take it."""
        service = self._service
        try:
            version = find(self.name, self.alias)
        except Exception as error:  # whatever a store that is away raises
            self._away(error)
            return
        if version is None:
            self._note(f"{self.name} has no alias {self.alias}")
            return
        self._note("")
        number, served = int(version.version), service.served
        if served is not None and served.version == number:
            service.refused = None
            if served.aliases != tuple(version.aliases):
                service.served = dataclasses.replace(served, aliases=tuple(version.aliases))
        # Where nothing answers yet, what was refused is tried again: the catalogue may have come meanwhile.
        elif served is None or service.refused is None or service.refused.version != number:
            self._take(version, number)

    def _take(self, version: ModelVersion, number: int) -> None:
        try:
            folder = fetch(version)
        except Exception as error:  # the store went away meanwhile: nothing is said of the release
            self._away(error)
            return
        try:
            served = load_version(version, Release(folder))
        except Exception as error:  # a release that cannot be loaded, for whatever reason, must not end the one that answers
            reason = (
                str(error).replace(f"{folder}/", "") if isinstance(error, DeepRankError) else f"{type(error).__name__} while it was loaded"
            )
            refused = self._service.refused
            if refused is None or (refused.version, refused.reason) != (number, reason):
                log.exception("version %d of %s is not taken", number, self.name)
                self._service.refuse(number, reason)
            return
        self._service.take(served)
        log.info("version %d of %s answers now", number, self.name)

    def _watch(self) -> None:
        while not self._stop.wait(self._service.settings.follow.every):
            self.look()

    def _away(self, error: Exception) -> None:
        if self._service.registry is None or self._service.registry.reachable:
            log.warning("the registry is away, what is loaded goes on: %s", error)
        self._service.registry = RegistryState(False, utc_now(), f"{type(error).__name__} when the registry was asked")
        self._service.meters.reachable.set(0)

    def _note(self, error: str) -> None:
        self._service.registry = RegistryState(True, utc_now(), error)
        self._service.meters.reachable.set(1)


def load_version(version: ModelVersion, release: Release) -> Served:
    """Load and check a release of the registry.

    Raises:
        ModelError: it is damaged.

    """
    model = f"models:/{version.name}/{version.version}"
    return Served.load(release, model, int(version.version), dict(version.tags), tuple(version.aliases))


def load_fixed(model: str) -> Served:
    """Load and check the release that an address without alias names.

    Raises:
        ModelError: it is not there, or damaged.

    """
    release = open_release(model)
    if not model.startswith("models:/"):
        return Served.load(release, release.folder.resolve().name)
    name, _, number = model.removeprefix("models:/").partition("/")
    version = find(name, number)
    if version is None:
        raise ModelError(f"{model} is no longer in the registry")
    return load_version(version, release)

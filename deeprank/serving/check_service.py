"""Check that a running service serves the champion."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from deeprank.errors import ConfigError, ModelError
from deeprank.registry.releases import find_version
from deeprank.reporting import Reporter
from deeprank.settings import Settings

POLL_INTERVAL_S = 1.0
MAX_REQUEST_S = 10.0

State = Literal["up to date", "outdated", "unreachable", "not configured", "no champion"]


class ServiceSettings(Settings):
    """The running service that is expected to serve the champion.

    Attributes:
        url: its address, e.g. http://127.0.0.1:8000; empty: no service is checked.
        token_variable: environment variable with its bearer token; empty: the service needs no token.
        timeout_s: time that the service has to find, load and check a new champion, in seconds.
        on_failure: `stop` fails the run; `warn` logs a warning and continues. The champion stays champion in either case.

    """

    url: str = Field("", pattern=r"^(https?://\S+)?$")
    token_variable: str = ""
    timeout_s: float = Field(120, gt=0)
    on_failure: Literal["stop", "warn"] = "stop"


@dataclass(frozen=True)
class ServiceStatus:
    """Whether the service serves the champion.

    Attributes:
        state: up to date: it does; outdated: it serves another version; unreachable: it returned no version;
            not configured: there is no URL; no champion: the registered model has none.
        version: version that it serves; None if unknown, -1 if it serves another registered model.
        reason: why, in words.
        wait_s: time until this was known, in seconds.

    """

    state: State
    version: int | None
    reason: str
    wait_s: float

    @property
    def failed(self) -> bool:
        """Whether the service does not serve the champion although it should."""
        return self.state in ("outdated", "unreachable")


def check_service(name: str, settings: ServiceSettings, reporter: Reporter) -> ServiceStatus:
    """Wait until the service serves the champion, and report the result.

    Reports the notes service.state and service.reason, and the metrics service.version and service.wait_s.

    Args:
        name: name of the registered model.
        settings: address of the service, timeout, and what a failure does.
        reporter: receives the result.

    Raises:
        ConfigError: the environment variable of the token is not set.
        ModelError: the service did not serve the champion in time, and `on_failure` is `stop`.

    """
    champion = find_version(name, "champion")
    if not settings.url:
        status = ServiceStatus("not configured", None, "service.url is empty", 0.0)
    elif champion is None:
        status = ServiceStatus("no champion", None, f"{name} has no champion", 0.0)
    else:
        status = wait_for_version(name, int(champion.version), settings)
    reporter.note("service.state", status.state)
    reporter.note("service.reason", status.reason)
    reporter.metric("service.wait_s", status.wait_s)
    if status.version is not None:
        reporter.metric("service.version", status.version)
    if champion and status.failed and settings.on_failure == "stop":
        raise ModelError(f"the service at {settings.url} does not serve {name} version {champion.version}: {status.reason}")
    return status


def wait_for_version(name: str, version: int, settings: ServiceSettings) -> ServiceStatus:
    """Poll the service until it serves a version, refuses it, or the timeout is over."""
    start, timeout = time.monotonic(), f"timeout after {settings.timeout_s:g} s"
    while True:
        served, reason = _served_version(name, settings)
        wait_s = time.monotonic() - start
        if served == version:
            return ServiceStatus("up to date", version, f"it serves {name} version {version}", wait_s)
        refusal = _refusal(version, settings) if served is not None else ""
        if refusal:
            return ServiceStatus("outdated", served, f"it refused version {version}: {refusal}; {reason}", wait_s)
        if wait_s + POLL_INTERVAL_S > settings.timeout_s:
            return ServiceStatus("unreachable" if served is None else "outdated", served, f"{timeout}: {reason}", wait_s)
        time.sleep(POLL_INTERVAL_S)


def _served_version(name: str, settings: ServiceSettings) -> tuple[int | None, str]:
    """Return the version that the service serves, and the same in words; None and the error if it returned no version."""
    try:
        _, model = _get_json(settings, "/v1/model")
        served_name, version = str(model["name"]), int(model["version"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        return None, str(error) or type(error).__name__
    return (version if served_name == name else -1), f"it serves {served_name} version {version}"


def _refusal(version: int, settings: ServiceSettings) -> str:
    """Return the reason for which the service refused a version, from /readyz; empty if it did not."""
    try:
        refused = _get_json(settings, "/readyz")[1]["refused"]
        return str(refused["reason"]) if refused and int(refused["version"]) == version else ""
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return ""


def _get_json(settings: ServiceSettings, path: str) -> tuple[int, Any]:
    """Return status and JSON body of a GET request; only /readyz may return an error status, as its body is valid then too."""
    request = urllib.request.Request(settings.url.rstrip("/") + path)
    if settings.token_variable:
        token = os.environ.get(settings.token_variable)
        if not token:
            raise ConfigError(f"service.token_variable is {settings.token_variable}, and this environment variable is not set")
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=min(MAX_REQUEST_S, settings.timeout_s)) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        body = error.read()
        if path != "/readyz":
            raise OSError(f"{path} returned status {error.code}: {body[:300].decode(errors='replace')}") from None
        return error.code, json.loads(body)

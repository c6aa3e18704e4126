"""Whether a running service has taken the champion."""

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
from deeprank.registry.releases import find
from deeprank.reporting import Reporter
from deeprank.settings import Settings

# Seconds between two questions, and for one answer.
EVERY, ANSWER = 1.0, 10.0

State = Literal["taken", "refused", "unreachable", "none configured", "no champion"]


class ServiceSettings(Settings):
    """Which running service is to take the champion.

    Attributes:
        url: where it listens, e.g. http://127.0.0.1:8000; empty: there is none to check.
        token_variable: environment variable that holds its bearer token; empty: it wants none.
        wait_seconds: how long it may take: it looks for a new champion, loads it and checks it.
        on_failure: `stop` ends the run as failed; `warn` says it and goes on. The champion stays in either case.

    """

    url: str = Field("", pattern=r"^(https?://\S+)?$")
    token_variable: str = ""
    wait_seconds: float = Field(120, gt=0)
    on_failure: Literal["stop", "warn"] = "stop"


@dataclass(frozen=True)
class Answer:
    """What the service came to: its state, the version that it serves (None: unknown), why, and after how many seconds."""

    state: State
    version: int | None
    reason: str
    took_seconds: float


def check_service(name: str, settings: ServiceSettings, reporter: Reporter) -> Answer:
    """Wait until the service serves the champion, whoever made it that; report service.state, .reason, .version and .took_seconds.

    Args:
        name: of the registered model.
        settings: where the service is, and what happens when it does not take it.
        reporter: hears all of it.

    Raises:
        ConfigError: the variable for the token is not set.
        ModelError: it did not take the version in time, and the settings say to stop.

    """
    champion = find(name, "champion")
    if not settings.url:
        answer = Answer("none configured", None, "service.url is empty", 0.0)
    elif champion is None:
        answer = Answer("no champion", None, f"{name} has none", 0.0)
    else:
        answer = await_version(name, int(champion.version), settings)
    reporter.note("service.state", answer.state)
    reporter.note("service.reason", answer.reason)
    reporter.metric("service.took_seconds", answer.took_seconds)
    if answer.version is not None:
        reporter.metric("service.version", answer.version)
    if champion and answer.state in ("refused", "unreachable") and settings.on_failure == "stop":
        raise ModelError(f"the service at {settings.url} did not take {name} version {champion.version}: {answer.reason}")
    return answer


def await_version(name: str, version: int, settings: ServiceSettings) -> Answer:
    """Ask the service which version it serves until it is this one, or it refuses it, or the time is over."""
    started, within = time.monotonic(), f"within {settings.wait_seconds:g} s"
    while True:
        seen, told = _served(name, settings)
        took = time.monotonic() - started
        if seen == version:
            return Answer("taken", version, f"it serves {name} version {version}", took)
        refused = _refusal(version, settings) if seen is not None else ""
        if refused:
            return Answer("refused", seen, f"it refuses version {version}: {refused}; {told}", took)
        if took + EVERY > settings.wait_seconds:
            return Answer("unreachable" if seen is None else "refused", seen, f"not {within}: {told}", took)
        time.sleep(EVERY)


def _served(name: str, settings: ServiceSettings) -> tuple[int | None, str]:
    """Return the version that the service serves, and that in words; None and the problem where it does not say so."""
    try:
        _, model = _get(settings, "/v1/model")
        served, version = str(model["name"]), int(model["version"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        return None, str(error) or type(error).__name__
    return (version if served == name else -1), f"it serves {served} version {version}"


def _refusal(version: int, settings: ServiceSettings) -> str:
    """Return why the service refuses a version, as /readyz tells; empty where it tells no such thing."""
    try:
        refused = _get(settings, "/readyz")[1]["refused"]
        return str(refused["reason"]) if refused and int(refused["version"]) == version else ""
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return ""


def _get(settings: ServiceSettings, path: str) -> tuple[int, Any]:
    """Return status and JSON of an answer; of an error status only of /readyz, which speaks through one."""
    request = urllib.request.Request(settings.url.rstrip("/") + path)
    if settings.token_variable:
        token = os.environ.get(settings.token_variable)
        if not token:
            raise ConfigError(f"service.token_variable names {settings.token_variable}, which is not set")
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=min(ANSWER, settings.wait_seconds)) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        body = error.read()
        if path != "/readyz":
            raise OSError(f"{path} answered {error.code}: {body[:300].decode(errors='replace')}") from None
        return error.code, json.loads(body)

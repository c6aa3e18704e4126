"""The check of a running service, against an HTTP server that responds as the service does."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from deeprank.errors import ConfigError, ModelError
from deeprank.reporting import Record
from deeprank.serving.check_service import ServiceSettings, ServiceStatus, check_service
from tests.registry_fixtures import NAME, Store

TOKEN = "a secret token"


class Service(http.server.BaseHTTPRequestHandler):
    """Returns the versions one after another, then the last one always; requires a bearer token if one is set."""

    versions: ClassVar[list[int]] = []
    name: ClassVar[str] = NAME
    refused: ClassVar[dict[str, Any] | None] = None
    token: ClassVar[str] = ""

    def do_GET(self) -> None:
        if self.token and self.headers["Authorization"] != f"Bearer {self.token}":
            self._respond(401, {"title": "no token"})
        elif self.path == "/v1/model":
            version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
            self._respond(200, {"name": self.name, "version": version})
        else:
            self._respond(200, {"status": "ready", "refused": self.refused})

    def _respond(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Service.versions, Service.name, Service.refused, Service.token = [], NAME, None, ""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


# The store's champion is version 3.
def _check(url: str, tmp_path: Path, name: str = NAME, **settings: Any) -> tuple[Record, ServiceStatus]:
    reporter = Record(tmp_path)
    status = check_service(name, ServiceSettings(url=url, **{"timeout_s": 1.5} | settings), reporter)
    assert reporter.notes["service.state"] == status.state
    return reporter, status


def test_service_that_loads_the_champion_in_time_is_up_to_date(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions = [1, 3]
    reporter, status = _check(url, tmp_path, timeout_s=20)
    assert (status.state, status.version) == ("up to date", 3)
    metrics = {point.name: point.value for point in reporter.points}
    assert metrics["service.version"] == 3
    assert 1 <= metrics["service.wait_s"] < 10


def test_refusal_ends_the_wait_with_its_reason(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions, Service.refused = [1], {"version": 3, "reason": "its canary has other neighbors", "at": "now"}
    with pytest.raises(ModelError, match=f"does not serve {NAME} version 3: it refused version 3: its canary has other neighbors"):
        _check(url, tmp_path, timeout_s=600)


def test_refusal_of_another_version_is_ignored(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions, Service.refused = [1, 1, 3], {"version": 2, "reason": "damaged", "at": "then"}
    assert _check(url, tmp_path, timeout_s=20)[1].state == "up to date"


def test_outdated_service_is_only_reported_with_on_failure_warn(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions = [1]
    reporter, status = _check(url, tmp_path, on_failure="warn")
    assert (status.state, status.version) == ("outdated", 1)
    assert reporter.notes["service.reason"] == f"timeout after 1.5 s: it serves {NAME} version 1"


def test_same_version_of_another_model_is_outdated(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions, Service.name = [3], "plants"
    status = _check(url, tmp_path, on_failure="warn")[1]
    assert (status.state, status.reason) == ("outdated", "timeout after 1.5 s: it serves plants version 3")


def test_service_that_is_not_running_is_unreachable(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the service at http://127\.0\.0\.1:9 does not serve .* refused"):
        _check("http://127.0.0.1:9", tmp_path)


def test_token_is_sent_and_a_missing_variable_is_named(store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Service.versions, Service.token = [3], TOKEN
    status = _check(url, tmp_path, on_failure="warn")[1]
    assert (status.state, status.version) == ("unreachable", None)
    assert "/v1/model returned status 401" in status.reason
    with pytest.raises(ConfigError, match="SERVICE_TOKEN, and this environment variable is not set"):
        _check(url, tmp_path, token_variable="SERVICE_TOKEN")
    monkeypatch.setenv("SERVICE_TOKEN", TOKEN)
    assert _check(url, tmp_path, token_variable="SERVICE_TOKEN")[1].state == "up to date"


def test_no_url_or_no_champion_sends_no_request(store: Store, tmp_path: Path) -> None:
    assert _check("", tmp_path)[1].state == "not configured"
    status = _check("http://127.0.0.1:9", tmp_path, name="nobody")[1]
    assert (status.state, status.reason) == ("no champion", "nobody has no champion")

"""A real HTTP server that answers as the service does: what is taken, refused, never reached, or not asked for."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from deeprank.errors import ConfigError, ModelError
from deeprank.reporting import Record
from deeprank.serving.check_service import ServiceSettings, check_service
from tests.serving.conftest import NAME, Store

TOKEN = "a token of our own"


class Service(http.server.BaseHTTPRequestHandler):
    """Serves the versions in turn, the last one for ever; wants a bearer token where one is set."""

    versions: ClassVar[list[int]] = []
    name: ClassVar[str] = NAME
    refused: ClassVar[dict[str, Any] | None] = None
    token: ClassVar[str] = ""

    def do_GET(self) -> None:
        if self.token and self.headers["Authorization"] != f"Bearer {self.token}":
            self._answer(401, {"title": "no token"})
        elif self.path == "/v1/model":
            version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
            self._answer(200, {"name": self.name, "version": version})
        else:
            self._answer(200, {"status": "ready", "refused": self.refused})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
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
def _check(url: str, tmp_path: Path, name: str = NAME, **settings: Any) -> tuple[Record, Any]:
    reporter = Record(tmp_path)
    answer = check_service(name, ServiceSettings(url=url, **{"wait_seconds": 1.5} | settings), reporter)
    assert reporter.notes["service.state"] == answer.state
    return reporter, answer


def test_a_service_that_takes_the_champion_within_the_time_has_taken_it(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions = [1, 3]
    reporter, answer = _check(url, tmp_path, wait_seconds=20)
    assert (answer.state, answer.version) == ("taken", 3)
    figures = {point.name: point.value for point in reporter.points}
    assert figures["service.version"] == 3
    assert 1 <= figures["service.took_seconds"] < 10


def test_a_refusal_ends_the_wait_with_the_services_reason(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions, Service.refused = [1], {"version": 3, "reason": "its canaries have other neighbors", "at": "now"}
    with pytest.raises(ModelError, match=f"did not take {NAME} version 3: it refuses version 3: its canaries have other neighbors"):
        _check(url, tmp_path, wait_seconds=600)


def test_a_refusal_of_an_older_release_is_no_refusal_of_this_one(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions, Service.refused = [1, 1, 3], {"version": 2, "reason": "damaged", "at": "then"}
    assert _check(url, tmp_path, wait_seconds=20)[1].state == "taken"


def test_a_service_that_stays_with_the_old_one_is_only_warned_of_if_so_set(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions = [1]
    reporter, answer = _check(url, tmp_path, on_failure="warn")
    assert (answer.state, answer.version) == ("refused", 1)
    assert reporter.notes["service.reason"] == f"not within 1.5 s: it serves {NAME} version 1"


def test_the_same_version_of_another_model_is_not_it(store: Store, url: str, tmp_path: Path) -> None:
    Service.versions, Service.name = [3], "plants"
    answer = _check(url, tmp_path, on_failure="warn")[1]
    assert (answer.state, answer.reason) == ("refused", "not within 1.5 s: it serves plants version 3")


def test_nobody_there_is_unreachable(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the service at http://127\.0\.0\.1:9 did not take .* refused"):
        _check("http://127.0.0.1:9", tmp_path)


def test_a_token_is_shown_and_a_missing_one_is_named(store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Service.versions, Service.token = [3], TOKEN
    answer = _check(url, tmp_path, on_failure="warn")[1]
    assert (answer.state, answer.version) == ("unreachable", None)
    assert "/v1/model answered 401" in answer.reason
    with pytest.raises(ConfigError, match="OUR_TOKEN, which is not set"):
        _check(url, tmp_path, token_variable="OUR_TOKEN")
    monkeypatch.setenv("OUR_TOKEN", TOKEN)
    assert _check(url, tmp_path, token_variable="OUR_TOKEN")[1].state == "taken"


def test_without_a_url_or_a_champion_nobody_is_asked(store: Store, tmp_path: Path) -> None:
    assert _check("", tmp_path)[1].state == "none configured"
    answer = _check("http://127.0.0.1:9", tmp_path, name="nobody")[1]
    assert (answer.state, answer.reason) == ("no champion", "nobody has none")

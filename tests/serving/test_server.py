"""Where the service listens, who may ask, and how long it waits for a request."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ConfigError
from deeprank.models.bundle import Bundle
from deeprank.serving.batching import BatchSettings
from deeprank.serving.middleware import Limits
from deeprank.serving.server import check_access, read_token
from deeprank.serving.service import ServeSettings
from deeprank.triplets.sampling import Triplets
from tests.serving.conftest import make_release
from tests.serving.running import Running, running

IMPATIENT = ServeSettings(
    batching=BatchSettings(nets=1, decoders=1),
    limits=Limits(upload_bytes=50_000, held_bytes=60_000, seconds=0.4, head_seconds=0.3, head_bytes=2048),
)


@pytest.fixture(scope="module")
def server(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = make_release(tmp_path_factory.mktemp("served") / "release", catalogue, bundle, embeddings, triplets, 0.6)
    with running(str(folder), IMPATIENT) as started:
        yield started


def exchange(port: int, *pieces: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """Send pieces over a connection of one's own; return all that comes back until it is closed, and after how long that was."""
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break
            time.sleep(pause)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer, time.perf_counter() - start


HEAD = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


def test_a_connection_that_says_nothing_is_closed(server: Running) -> None:
    answer, took = exchange(server.port)
    assert answer == b""
    assert 0.2 < took < 15


def test_a_head_that_dribbles_in_or_never_ends_is_closed(server: Running) -> None:
    assert exchange(server.port, b"GET /healthz HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 8, pause=0.1)[0] == b""
    assert exchange(server.port, b"GET /healthz HTTP/1.1\r\n", *[b"X-A: " + b"b" * 1000 + b"\r\n"] * 20, pause=0.001)[0] == b""


def test_what_follows_an_answer_and_is_no_request_holds_no_connection(server: Running) -> None:
    # Refused by its head; of the body a little comes, and then nothing more.
    answer, took = exchange(server.port, HEAD.replace(b"localhost", b"elsewhere"), b" " * 10, pause=0.1)
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert took < 15
    asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer, took = exchange(server.port, asked, b"\r\n", pause=0.1)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert took < 15
    # A client that goes on asking is not cut off.
    last = asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert exchange(server.port, *[asked] * 5, last, pause=0.15)[0].count(b"HTTP/1.1 200 ") == 6


def test_a_body_that_does_not_come_is_not_waited_for(server: Running) -> None:
    answer, took = exchange(server.port, HEAD, *[b" "] * 6, pause=0.1)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert took < 15


def test_too_many_bodies_at_once_are_sent_away(server: Running) -> None:
    body = b" " * 40_000
    head = HEAD.replace(b"1000", b"45000")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as first:
        first.sendall(head + body)
        time.sleep(0.1)
        answer, _ = exchange(server.port, head + body)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1" in answer.lower()
    assert httpx.post(f"{server.url}/v1/search", json={"id": "0" * 64}).status_code == 422


def test_what_is_no_http_is_refused(server: Running) -> None:
    assert exchange(server.port, b"\x16\x03\x01\x02\x00" + b"\0" * 50)[0].startswith(b"HTTP/1.1 400 ")


def test_without_a_token_it_answers_only_to_this_machines_names(server: Running) -> None:
    for name in ("localhost", f"127.0.0.1:{server.port}", "[::1]:8000", "LOCALHOST"):
        assert httpx.get(f"{server.url}/v1/model", headers={"Host": name}).status_code == 200
    # A page of that name may have led this machine's browser here.
    for name in ("elsewhere.example", "localhost.elsewhere.example:8000", "", "127.0.0.1:8000.elsewhere.example"):
        answer = httpx.get(f"{server.url}/v1/model", headers={"Host": name})
        assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json")
        assert "answers to localhost" in answer.json()["detail"]


def test_who_shows_the_token_may_call_it_by_any_name(server: Running) -> None:
    with running(str(server.service.current().searcher.release.folder), IMPATIENT, "a token of our own") as started:
        headers = {"Host": "elsewhere.example", "Authorization": "Bearer a token of our own"}
        assert httpx.get(f"{started.url}/v1/model", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.7"])
def test_on_this_machine_no_token_is_wanted(host: str) -> None:
    check_access(host, None, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_elsewhere_a_token_is_wanted_unless_insecure_is_spelled_out(host: str) -> None:
    with pytest.raises(ConfigError, match=f"--host {host} can be reached from elsewhere"):
        check_access(host, None, insecure=False)
    check_access(host, None, insecure=True)
    check_access(host, "x" * 16, insecure=False)
    with pytest.raises(ConfigError, match="the token has 0 characters"):
        check_access(host, "", insecure=True)


def test_the_token_is_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPRANK_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("DEEPRANK_TOKEN", "from the environment")
    assert read_token(None) == "from the environment"
    (tmp_path / "token").write_text("from a file\n")
    assert read_token(tmp_path / "token") == "from a file"
    with pytest.raises(ConfigError, match="missing cannot be read"):
        read_token(tmp_path / "missing")

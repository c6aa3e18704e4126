"""Connections over raw sockets: slow, oversized and invalid requests hold no connection."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deeprank.serving.batching import BatchSettings
from deeprank.serving.middleware import Limits
from deeprank.serving.service import ServeSettings
from tests.serving.live_server import LiveServer, live_server

SHORT_TIMEOUTS = ServeSettings(
    batching=BatchSettings(num_workers=1, num_decoders=1),
    limits=Limits(max_upload_bytes=50_000, max_bytes_in_flight=60_000, body_timeout_s=0.4, header_timeout_s=0.3, max_header_bytes=2048),
)
HEADER = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    with live_server(str(folder), SHORT_TIMEOUTS) as server:
        yield server


def exchange(port: int, *chunks: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """Send chunks over a new connection; return all data received until it is closed, and the seconds until then."""
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for chunk in chunks:
            try:
                connection.sendall(chunk)
            except OSError:
                break
            time.sleep(pause)
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received, time.perf_counter() - start


def test_a_silent_connection_is_closed(server: LiveServer) -> None:
    received, seconds = exchange(server.port)
    assert received == b""
    assert 0.2 < seconds < 15


def test_a_slow_or_endless_header_closes_the_connection(server: LiveServer) -> None:
    assert exchange(server.port, b"GET /healthz HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 8, pause=0.1)[0] == b""
    assert exchange(server.port, b"GET /healthz HTTP/1.1\r\n", *[b"X-A: " + b"b" * 1000 + b"\r\n"] * 20, pause=0.001)[0] == b""


def test_data_after_a_response_does_not_hold_the_connection(server: LiveServer) -> None:
    # The header is refused; a little of the body follows, and then nothing.
    received, seconds = exchange(server.port, HEADER.replace(b"localhost", b"elsewhere"), b" " * 10, pause=0.1)
    assert received.startswith(b"HTTP/1.1 421 ")
    assert seconds < 15
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    received, seconds = exchange(server.port, request, b"\r\n", pause=0.1)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert seconds < 15
    # Further requests on the same connection are not cut off.
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert exchange(server.port, *[request] * 5, last, pause=0.15)[0].count(b"HTTP/1.1 200 ") == 6


def test_a_body_that_is_too_late_gets_status_408(server: LiveServer) -> None:
    received, seconds = exchange(server.port, HEADER, *[b" "] * 6, pause=0.1)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in received
    assert seconds < 15


def test_too_many_bytes_in_flight_get_status_429(server: LiveServer) -> None:
    body = b" " * 40_000
    header = HEADER.replace(b"1000", b"45000")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as first:
        first.sendall(header + body)
        time.sleep(0.1)
        received, _ = exchange(server.port, header + body)
    assert received.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1" in received.lower()
    assert httpx.post(f"{server.url}/v1/search", json={"id": "0" * 64}).status_code == 422


def test_data_that_is_not_http_gets_status_400(server: LiveServer) -> None:
    assert exchange(server.port, b"\x16\x03\x01\x02\x00" + b"\0" * 50)[0].startswith(b"HTTP/1.1 400 ")

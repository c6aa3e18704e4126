"""200 hostile requests and a few slow clients against a service in its own process: it stays up, and its memory does not grow."""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from deeprank.serving.batch_queue import IDLE_S
from tests.drawing import encoded, pattern
from tests.serving.hostile_requests import form, hostile_requests

pytestmark = pytest.mark.slow
REFUSALS = {400, 408, 413, 415, 422, 429}
SERVE_SCRIPT = """
import sys
from deeprank.serving.middleware import Limits
from deeprank.serving.server import serve
from deeprank.serving.service import ServeSettings
serve(sys.argv[1], port=int(sys.argv[2]), settings=ServeSettings(limits=Limits(body_timeout_s=5, header_timeout_s=3)))
"""


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[tuple[int, str]]:
    """A service in its own process: the process id and the URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = subprocess.Popen([sys.executable, "-c", SERVE_SCRIPT, str(folder), str(port)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert started.poll() is None
            try:
                httpx.get(f"{url}/readyz").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield started.pid, url
        assert started.poll() is None
    finally:
        started.terminate()
        assert started.wait(30) in (0, -15)


def memory_mb(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def idle_memory_mb(pid: int) -> int:
    """Return the lowest resident memory of a process while it is idle long enough to return free memory."""
    lowest = memory_mb(pid)
    for _ in range(2 * round(IDLE_S) + 6):
        time.sleep(0.5)
        lowest = min(lowest, memory_mb(pid))
    return lowest


def send(client: httpx.Client, body: bytes, content_type: str) -> int:
    return client.post("/v1/search", content=body, headers={"Content-Type": content_type}).status_code


def send_slowly(port: int, body: bytes) -> bytes:
    """Send a form byte by byte, with pauses; return the first line of the response."""
    header = f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: {form(b'')[1]}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(header.encode())
        for byte in body[:40]:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.2)
        return connection.recv(65536).split(b"\r\n")[0]


def test_hostile_requests_cause_no_failure_and_no_leak(process: tuple[int, str]) -> None:
    pid, url = process
    valid = form(encoded(pattern(1, (300, 300)), "JPEG"))
    large = form(encoded(pattern(1, (4000, 3000)), "JPEG"))
    hostile = hostile_requests()
    assert len(hostile) >= 200
    statuses: Counter[int] = Counter()
    durations, memory = [], []
    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(16) as senders:
        assert {send(client, *request) for request in [valid, large] * 10} == {200}
        memory.append(idle_memory_mb(pid))
        slow = [senders.submit(send_slowly, int(url.rpartition(":")[2]), valid[0]) for _ in range(8)]
        # The first round fills the caches that libraries keep per format; the second round must add nothing.
        for _ in range(2):
            for request in hostile:
                start = time.perf_counter()
                statuses[send(client, *request)] += 1
                durations.append(time.perf_counter() - start)
            statuses.update(senders.map(lambda request: send(client, *request), hostile[:40]))
            memory.append(idle_memory_mb(pid))
        assert {response.result().split()[1] for response in slow} == {b"408"}
        assert send(client, *valid) == 200
    print(statuses, f"slowest {max(durations):.1f} s", f"MB before, after round 1, after round 2: {memory}")
    assert set(statuses) <= REFUSALS | {200}
    assert max(durations) < 20
    assert memory[1] < memory[0] + 200
    assert memory[2] < memory[1] + 40

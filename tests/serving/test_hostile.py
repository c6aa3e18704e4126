"""200 hostile uploads and a few slow senders against a service in a process of its own: it stays up, and as small as it was."""

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
import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.serving.batching import IDLE
from deeprank.triplets.sampling import Triplets
from tests.drawing import encoded, pattern
from tests.serving.conftest import make_release
from tests.serving.hostile import form, requests

pytestmark = pytest.mark.slow
REFUSED = {400, 408, 413, 415, 422, 429}
START = """
import sys
from deeprank.serving.middleware import Limits
from deeprank.serving.server import serve
from deeprank.serving.service import ServeSettings
serve(sys.argv[1], port=int(sys.argv[2]), settings=ServeSettings(limits=Limits(seconds=5, head_seconds=3)))
"""


@pytest.fixture(scope="module")
def process(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, str]]:
    """A service: its process and address."""
    folder = make_release(tmp_path_factory.mktemp("served") / "release", catalogue, bundle, embeddings, triplets, 0.6)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = subprocess.Popen([sys.executable, "-c", START, str(folder), str(port)], env=os.environ | {"OMP_NUM_THREADS": "1"})
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


def resident(pid: int) -> int:
    """Return a process's memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def send(client: httpx.Client, body: bytes, kind: str) -> int:
    return client.post("/v1/search", content=body, headers={"Content-Type": kind}).status_code


def dribble(port: int, body: bytes) -> bytes:
    """Send a form a byte now and then; return the answer's first line."""
    head = f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: {form(b'')[1]}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        for byte in body[:40]:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.2)
        return connection.recv(65536).split(b"\r\n")[0]


def settled(pid: int) -> int:
    """Return a process's memory in MB once it was idle long enough to give back what it does not need."""
    lowest = resident(pid)
    for _ in range(2 * round(IDLE) + 6):
        time.sleep(0.5)
        lowest = min(lowest, resident(pid))
    return lowest


def test_nothing_brings_it_down_nothing_is_its_own_fault_and_its_memory_comes_back(process: tuple[int, str]) -> None:
    pid, url = process
    good = form(encoded(pattern(1, (300, 300)), "JPEG"))
    large = form(encoded(pattern(1, (4000, 3000)), "JPEG"))
    hostile = requests()
    assert len(hostile) >= 200
    statuses: Counter[int] = Counter()
    took, memory = [], []
    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(16) as senders:
        assert {send(client, *request) for request in [good, large] * 10} == {200}
        memory.append(settled(pid))
        slow = [senders.submit(dribble, int(url.rpartition(":")[2]), good[0]) for _ in range(8)]
        # Twice: the first time fills what a library keeps for each format; the second must leave nothing more.
        for _ in range(2):
            for request in hostile:
                start = time.perf_counter()
                statuses[send(client, *request)] += 1
                took.append(time.perf_counter() - start)
            statuses.update(senders.map(lambda request: send(client, *request), hostile[:40]))
            memory.append(settled(pid))
        assert {answer.result().split()[1] for answer in slow} == {b"408"}
        assert send(client, *good) == 200
    print(statuses, f"slowest {max(took):.1f} s", f"MB before, after once, after twice: {memory}")
    assert set(statuses) <= REFUSED | {200}
    assert max(took) < 20
    assert memory[1] < memory[0] + 200
    assert memory[2] < memory[1] + 40

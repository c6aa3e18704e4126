"""A real server on a loopback port, in a thread, for tests that ask it as clients do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deeprank.serving.batching import BatchSettings
from deeprank.serving.server import following, server
from deeprank.serving.service import ServeSettings, Service

SMALL = ServeSettings(batching=BatchSettings(nets=2, decoders=2))


@dataclass(frozen=True)
class Running:
    """Where a server answers, and what does."""

    url: str
    port: int
    service: Service


@contextmanager
def running(model: str, settings: ServeSettings = SMALL, token: str | None = None) -> Iterator[Running]:
    """Serve a model as `deeprank serve` does, on any free port."""
    with following(model, settings) as service:
        web = server(service, "127.0.0.1", 0, token)
        thread = threading.Thread(target=web.run)
        thread.start()
        while not web.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = web.servers[0].sockets[0].getsockname()[1]
        try:
            yield Running(f"http://127.0.0.1:{port}", port, service)
        finally:
            web.should_exit = True
            thread.join()

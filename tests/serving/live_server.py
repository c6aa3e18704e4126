"""A real server on a loopback port, in a thread, for tests that send HTTP requests."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deeprank.serving.batching import BatchSettings
from deeprank.serving.server import create_server, open_service
from deeprank.serving.service import ServeSettings, Service

DEFAULT_SETTINGS = ServeSettings(batching=BatchSettings(num_workers=2, num_decoders=2))


@dataclass(frozen=True)
class LiveServer:
    """The address of a running server, and its service."""

    url: str
    port: int
    service: Service


@contextmanager
def live_server(model: str, settings: ServeSettings = DEFAULT_SETTINGS, token: str | None = None) -> Iterator[LiveServer]:
    """Serve a model as `deeprank serve` does, on a free port."""
    with open_service(model, settings) as service:
        server = create_server(service, "127.0.0.1", 0, token)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield LiveServer(f"http://127.0.0.1:{port}", port, service)
        finally:
            server.should_exit = True
            thread.join()

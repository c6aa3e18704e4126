"""Running the service: where it listens, who may ask, and how long a connection is waited for."""

import asyncio
import ipaddress
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deeprank.errors import ConfigError
from deeprank.serving.alias_watcher import AliasWatcher
from deeprank.serving.app import create_app
from deeprank.serving.middleware import Limits
from deeprank.serving.service import ServeSettings, Service

log = logging.getLogger("deeprank.serving")

SHORTEST_TOKEN = 16
THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Requests that are being answered when the service is told to end have so many seconds.
GRACE = 20


def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: ServeSettings | None = None,
    token: str | None = None,
    insecure: bool = False,
) -> None:
    """Answer over HTTP until a signal says to end.

    Args:
        model: models:/NAME@ALIAS, which is followed; models:/NAME/VERSION or a release's folder, which stay.
        host, port: where to listen.
        settings: limits, batching and how the registry is watched.
        token: that clients must show.
        insecure: listen elsewhere than on this machine, or answer to other names than its own, without a token.

    Raises:
        ConfigError: the token is too short, or there is none where one is wanted.
        ModelError: the release is not there or is damaged.

    """
    check_access(host, token, insecure)
    # A registry that hangs must not hold up for minutes the thread that asks it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    # It warns of each odd byte that a client sends.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    with following(model, settings or ServeSettings()) as service:
        log.info("%s answers at http://%s:%d", model, host, port)
        server(service, host, port, token, insecure).run()


@contextmanager
def following(model: str, settings: ServeSettings) -> Iterator[Service]:
    """Keep a service at the release that a model's address names, as long as the context lasts.

    Raises:
        ModelError: a fixed release is not there or is damaged.

    """
    service = Service(settings)
    follower = AliasWatcher(service, model)
    try:
        follower.start()
        yield service
    finally:
        follower.stop()
        service.batcher.close()


def server(service: Service, host: str, port: int, token: str | None = None, insecure: bool = False) -> uvicorn.Server:
    """Return the HTTP server of a service, ready to run."""
    limits = service.settings.limits
    # A page from elsewhere may give a name of its own to this machine's address; what it cannot do is to ask for `localhost`.
    names = None if token or insecure or not _is_this_machine(host) else THIS_MACHINE | {host}
    config = uvicorn.Config(
        create_app(service, token, names),
        host=host,
        port=port,
        http=_protocol(limits),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(config)


def read_token(file: Path | None) -> str | None:
    """Return the token in a file, else in DEEPRANK_TOKEN, else none.

    Raises:
        ConfigError: the file cannot be read.

    """
    if file is None:
        return os.environ.get("DEEPRANK_TOKEN") or None
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ConfigError(f"--token-file {file} cannot be read: {error.strerror}") from None


def check_access(host: str, token: str | None, insecure: bool) -> None:
    """Refuse to listen where anybody could ask without a token.

    Raises:
        ConfigError: the token is too short, or there is none where one is wanted.

    """
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"the token has {len(token)} characters: give it {SHORTEST_TOKEN} or more, e.g. `openssl rand -hex 32`")
    if token is None and not insecure and not _is_this_machine(host):
        raise ConfigError(
            f"--host {host} can be reached from elsewhere: set DEEPRANK_TOKEN or --token-file, or say --insecure to let anybody ask"
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _protocol(limits: Limits) -> type[HttpToolsProtocol]:
    class Impatient(HttpToolsProtocol):
        """Closes a connection whose request's head is too long or too late: uvicorn itself waits for ever."""

        _late: asyncio.TimerHandle | None = None
        _rest: asyncio.TimerHandle | None = None
        _head = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            if self._late is not None:
                if self._head > limits.head_bytes:
                    self.transport.close()
                    return
                self._head += len(data)
            super().data_received(data)
            # What follows an answer and is no request, such as the rest of a body that was refused, stops uvicorn's own clock.
            if self._late is None and self._rest is None and self.cycle is not None and self.cycle.response_complete:
                self._rest = self.loop.call_later(limits.seconds, self.transport.close)

        def on_message_begin(self) -> None:
            if self._late is None:
                self._wait_for_head()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._got_head()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._got_head()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            self._head = 0
            self._late = self.loop.call_later(limits.head_seconds, self.transport.close)

        def _got_head(self) -> None:
            for clock in (self._late, self._rest):
                if clock is not None:
                    clock.cancel()
            self._late = self._rest = None

    return Impatient

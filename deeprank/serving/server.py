"""Running the service: address, access control and the HTTP server."""

import ipaddress
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from deeprank.errors import ConfigError
from deeprank.serving.alias_watcher import AliasWatcher
from deeprank.serving.app import create_app
from deeprank.serving.http_protocol import limited_protocol
from deeprank.serving.service import ServeSettings, Service

log = logging.getLogger("deeprank.serving")

MIN_TOKEN_LENGTH = 16
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
# At shutdown, requests in progress may take this time.
SHUTDOWN_TIMEOUT_S = 20
REGISTRY_TIMEOUT_S = 10


def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: ServeSettings | None = None,
    token: str | None = None,
    insecure: bool = False,
) -> None:
    """Serve a model over HTTP until a signal ends the process.

    Args:
        model: models:/NAME@ALIAS, which is polled; models:/NAME/VERSION or the folder of a release, which are loaded once.
        host: address to listen on.
        port: port to listen on.
        settings: limits, batching and polling of the registry.
        token: token that clients must send; None: no token.
        insecure: allow other addresses than loopback, and any Host header, without a token.

    Raises:
        ConfigError: the token is too short, or is required and missing.
        ModelError: a fixed release is missing or damaged.

    """
    check_access(host, token, insecure)
    # A registry that does not respond must not block the polling thread for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REGISTRY_TIMEOUT_S))
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    # It logs a warning for every malformed form.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    with open_service(model, settings or ServeSettings()) as service:
        log.info("Serving %s at http://%s:%d", model, host, port)
        create_server(service, host, port, token, insecure).run()


@contextmanager
def open_service(model: str, settings: ServeSettings) -> Iterator[Service]:
    """Yield a service that holds the release of a model URI; polling and threads end with the context.

    Args:
        model: model URI or folder, as of `serve`.
        settings: limits, batching and polling of the registry.

    Raises:
        ModelError: a fixed release is missing or damaged.

    """
    service = Service(settings)
    watcher = AliasWatcher(service, model)
    try:
        watcher.start()
        yield service
    finally:
        watcher.stop()
        service.batcher.close()


def create_server(service: Service, host: str, port: int, token: str | None = None, insecure: bool = False) -> uvicorn.Server:
    """Return the HTTP server of a service; the arguments are those of `serve`."""
    limits = service.settings.limits
    # Against DNS rebinding: a foreign page can point its own name at the loopback address, but cannot send `Host: localhost`.
    allowed_hosts = None if token or insecure or not _is_loopback(host) else LOOPBACK_HOSTS | {host}
    config = uvicorn.Config(
        create_app(service, token, allowed_hosts),
        host=host,
        port=port,
        http=limited_protocol(limits),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.max_connections,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )
    return uvicorn.Server(config)


def read_token(file: Path | None) -> str | None:
    """Return the token in a file, or else in DEEPRANK_TOKEN; None if neither is given.

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
    """Refuse to listen on a reachable address without a token.

    Raises:
        ConfigError: the token is too short, or is required and missing.

    """
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise ConfigError(f"the token has {len(token)} characters; use {MIN_TOKEN_LENGTH} or more, e.g. `openssl rand -hex 32`")
    if token is None and not insecure and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} is reachable from other machines: set DEEPRANK_TOKEN or --token-file, or use --insecure to allow any client"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""The guard that every request passes first: host, token, size and time limits, security headers of responses, and metrics."""

import asyncio
import base64
import hmac
import io
import logging
import re
import time
import warnings

from PIL import Image
from pydantic import Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deeprank.data.images import IMAGE_FORMATS
from deeprank.serving.errors import ImageTooLargeError, problem_response
from deeprank.serving.metrics import ServiceMetrics
from deeprank.settings import Settings

log = logging.getLogger("deeprank.serving")

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CLOSE_CONNECTION = {"Connection": "close"}
HTTP_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CLIENT_CLOSED_REQUEST = 499


class Limits(Settings):
    """Limits of requests.

    Attributes:
        max_upload_bytes: size of a request's body.
        max_bytes_in_flight: size of all bodies that are being received or processed; a request beyond that gets status 429.
        max_pixels: width x height of an image, read from its header before it is decoded.
        body_timeout_s: seconds from a request's header to the end of its body.
        header_timeout_s: seconds until a request's header is complete.
        max_header_bytes: size of a request's header.
        max_connections: simultaneous connections.

    """

    max_upload_bytes: int = Field(10 * 2**20, ge=1)
    max_bytes_in_flight: int = Field(256 * 2**20, ge=1)
    max_pixels: int = Field(50_000_000, ge=1)
    body_timeout_s: float = Field(20.0, gt=0)
    header_timeout_s: float = Field(10.0, gt=0)
    max_header_bytes: int = Field(2**16, ge=1024)
    max_connections: int = Field(512, ge=1)


def check_pixels(image: bytes, max_pixels: int) -> None:
    """Refuse an image that is too large to decode; bytes that are not an image pass, because the decoder rejects them.

    Raises:
        ImageTooLargeError: the image has too many pixels.

    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(image), formats=IMAGE_FORMATS) as opened:
                width, height = opened.size
        except Image.DecompressionBombError:
            raise ImageTooLargeError(
                f"the image has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; at most {max_pixels:,} are allowed"
            ) from None
        except Exception:  # the decoder reports what is wrong with the file
            return
    if width * height > max_pixels:
        raise ImageTooLargeError(f"the image has {width} x {height} pixels; at most {max_pixels:,} are allowed")


class RequestGuard:
    """The outermost ASGI middleware.

    Args:
        app: the application behind the guard.
        limits: limits of requests.
        token: token that clients must send, as a bearer token or as the password of Basic authentication; None: no token.
        metrics: count and time each request.
        public_paths: paths that need no token, in addition to HEALTH_PATHS.
        allowed_hosts: values that a request's Host header may have; None: any.

    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        token: str | None,
        metrics: ServiceMetrics,
        public_paths: frozenset[str] = frozenset(),
        allowed_hosts: frozenset[str] | None = None,
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._token = token.encode() if token else None
        self._public_paths, self._allowed_hosts = HEALTH_PATHS | public_paths, allowed_hosts
        self.bytes_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, receive, send)
        method, path = scope["method"], scope["path"]
        # The server sends no body in response to HEAD, and takes the method from its own scope.
        scope = {**scope, "method": "GET"} if method == "HEAD" else scope
        try:
            refusal = self._refusal(scope)
            if refusal:
                await problem_response(refusal.status_code, refusal.detail, path, refusal.headers)(scope, receive, exchange.send)
            else:
                await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            log.info("%s %s: the client closed the connection", method, path)
        except Exception:
            log.exception("%s %s failed", method, path)
            if not exchange.status:
                await problem_response(500, "internal error: see the log of the service", path)(scope, receive, exchange.send)
        finally:
            self.bytes_in_flight -= exchange.num_received
            route = getattr(scope.get("route"), "path", "other")
            status = exchange.status or CLIENT_CLOSED_REQUEST
            self.metrics.requests.labels(method if method in HTTP_METHODS else "other", route, status).inc()
            self.metrics.request_duration.labels(route).observe(time.perf_counter() - exchange.start)

    def too_large(self) -> HTTPException:
        """Return the error for a body that exceeds the limit."""
        return HTTPException(413, f"the request is larger than {self.limits.max_upload_bytes:,} bytes", CLOSE_CONNECTION)

    def _refusal(self, scope: Scope) -> HTTPException | None:
        """Return the error of a request that is refused because of its header, else None."""
        headers = Headers(scope=scope)
        if self._allowed_hosts is not None and re.sub(r":\d*$", "", headers.get("host", "").lower()) not in self._allowed_hosts:
            return HTTPException(421, "without a token the service responds to localhost only; set a token, or use --insecure")
        if self._token and scope["path"] not in self._public_paths and not self._has_token(headers.get("authorization", "")):
            # Basic is accepted but not offered: browsers would show their own dialog instead of the page's field.
            return HTTPException(401, "a token is required", {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "")
        return self.too_large() if length.isdigit() and int(length) > self.limits.max_upload_bytes else None

    def _has_token(self, authorization: str) -> bool:
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                credentials = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return self._token is not None and hmac.compare_digest(credentials.encode(), self._token)


class _Exchange:
    """One request and its response: limits what is received, and adds headers to what is sent.

    Attributes:
        start: time of `time.perf_counter` at the start.
        status: status of the response; 0 until it starts.
        num_received: bytes of the body received so far.

    """

    def __init__(self, guard: RequestGuard, receive: Receive, send: Send) -> None:
        self._guard, self._receive, self._send = guard, receive, send
        self.start = time.perf_counter()
        self.status = 0
        self.num_received = 0

    async def send(self, message: Message) -> None:
        """Send a message of the response with the security headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def receive(self) -> Message:
        """Return the next message of the request.

        Raises:
            HTTPException: the body is too late or too large, or too many bytes are in flight.

        """
        guard, limits = self._guard, self._guard.limits
        try:
            remaining = limits.body_timeout_s - (time.perf_counter() - self.start)
            message = await asyncio.wait_for(self._receive(), max(0.001, remaining))
        except TimeoutError:
            raise HTTPException(408, f"the request was not complete within {limits.body_timeout_s:g} s", CLOSE_CONNECTION) from None
        size = len(message.get("body", b""))
        self.num_received += size
        guard.bytes_in_flight += size
        if self.num_received > limits.max_upload_bytes:
            raise guard.too_large()
        if guard.bytes_in_flight > limits.max_bytes_in_flight:
            raise HTTPException(429, "too many uploads are in progress: try again", {"Retry-After": "1", **CLOSE_CONNECTION})
        return message

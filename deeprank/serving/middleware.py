"""What every request passes first: token, size and time of what it sends; what every answer takes along; and what is counted."""

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

from deeprank.data.images import FORMATS
from deeprank.serving.errors import problem
from deeprank.serving.metrics import ServiceMetrics
from deeprank.settings import Settings

log = logging.getLogger("deeprank.serving")

OPEN = frozenset({"/healthz", "/readyz"})
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Limits(Settings):
    """What a client may send.

    Attributes:
        upload_bytes: of a request's body.
        held_bytes: of all bodies that are being received or answered; beyond that, 429.
        pixels: of an image, as its head says, before it is decoded.
        seconds: from a request's head to the end of its body.
        head_seconds, head_bytes: of a request's head.
        connections: at once.

    """

    upload_bytes: int = Field(10 * 2**20, ge=1)
    held_bytes: int = Field(256 * 2**20, ge=1)
    pixels: int = Field(50_000_000, ge=1)
    seconds: float = Field(20.0, gt=0)
    head_seconds: float = Field(10.0, gt=0)
    head_bytes: int = Field(2**16, ge=1024)
    connections: int = Field(512, ge=1)


def check_pixels(image: bytes, limit: int) -> None:
    """Refuse an image that would be too large to decode; bytes that are none are left to who decodes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
                width, height = opened.size
        except Image.DecompressionBombError as error:
            raise HTTPException(413, str(error)) from None
        except Exception:  # the decoder says what is wrong with it
            return
    if width * height > limit:
        raise HTTPException(413, f"{width} x {height} pixels are more than the {limit:,} allowed")


class RequestGuard:
    """ASGI middleware, the outermost.

    Args:
        app: what is guarded.
        limits: of a request.
        token: that a client must show, as a bearer's or as the password of Basic authentication; None: none.
        meters: count each request.
        free: paths that want no token, beside those of OPEN.
        names: that a request's Host may have; None: any.

    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        token: str | None,
        meters: ServiceMetrics,
        free: frozenset[str] = frozenset(),
        names: frozenset[str] | None = None,
    ) -> None:
        self.app, self.limits, self.meters, self._free, self._names = app, limits, meters, OPEN | free, names
        self._token = token.encode() if token else None
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, held = time.perf_counter(), 0, 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        async def receiving() -> Message:
            nonlocal held
            try:
                message = await asyncio.wait_for(receive(), max(0.001, self.limits.seconds - (time.perf_counter() - start)))
            except TimeoutError:
                raise HTTPException(408, f"the request was not there within {self.limits.seconds:g} s", _CLOSE) from None
            size = len(message.get("body", b""))
            held += size
            self._held += size
            if held > self.limits.upload_bytes:
                raise self._too_large()
            if self._held > self.limits.held_bytes:
                raise HTTPException(429, "too much is being uploaded: try again", {"Retry-After": "1", **_CLOSE})
            return message

        try:
            refused = self._refusal(scope)
            if refused:
                await problem(refused.status_code, refused.detail, scope["path"], refused.headers)(scope, receive, sending)
            else:
                await self.app(scope, receiving, sending)
        except ClientDisconnect:
            log.info("%s %s: the client went away", scope["method"], scope["path"])
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                await problem(500, "the service failed at this request; its log says why", scope["path"])(scope, receive, sending)
        finally:
            self._held -= held
            route = getattr(scope.get("route"), "path", "other")
            self.meters.requests.labels(scope["method"] if scope["method"] in _METHODS else "other", route, status or 499).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> HTTPException | None:
        """Say why a request is refused by its head alone."""
        headers = Headers(scope=scope)
        if self._names is not None and re.sub(r":\d*$", "", headers.get("host", "").lower()) not in self._names:
            return HTTPException(421, "this service answers to localhost; --insecure, or a token, lets it answer to other names")
        if self._token and scope["path"] not in self._free and not self._shown(headers.get("authorization", "")):
            # Basic is taken, but not asked for: a browser would put its own dialogue before the page's field.
            return HTTPException(401, "this service wants its token", {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "")
        return self._too_large() if length.isdigit() and int(length) > self.limits.upload_bytes else None

    def _shown(self, authorization: str) -> bool:
        kind, _, shown = authorization.partition(" ")
        if kind.lower() == "basic":
            try:
                shown = base64.b64decode(shown, validate=True).decode().partition(":")[2]
            except ValueError:
                return False
        elif kind.lower() != "bearer":
            return False
        return self._token is not None and hmac.compare_digest(shown.encode(), self._token)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"a request has at most {self.limits.upload_bytes:,} bytes", _CLOSE)


_CLOSE = {"Connection": "close"}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

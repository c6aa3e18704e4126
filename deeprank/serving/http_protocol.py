"""The HTTP protocol of the server: uvicorn's, with limits on the time and size of a request's header."""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deeprank.serving.middleware import Limits


class LimitedHttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request header is too long or too late; uvicorn itself has no such limits.

    Attributes:
        limits: limits of requests, set by `limited_protocol`.

    """

    limits: ClassVar[Limits] = Limits()

    _header_timer: asyncio.TimerHandle | None = None
    _rest_timer: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first header."""
        super().connection_made(transport)
        self._start_header_timer()

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the header."""
        if self._header_timer is not None:
            if self._header_bytes > self.limits.max_header_bytes:
                self.transport.close()
                return
            self._header_bytes += len(data)
        super().data_received(data)
        # Data after a response that is no new request, such as the rest of a refused body, stops uvicorn's keep-alive timer.
        response_complete = self.cycle is not None and self.cycle.response_complete
        if self._header_timer is None and self._rest_timer is None and response_complete:
            self._rest_timer = self.loop.call_later(self.limits.body_timeout_s, self.transport.close)

    def on_message_begin(self) -> None:
        """Start to wait for the header of a further request."""
        if self._header_timer is None:
            self._start_header_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop waiting: the header is complete."""
        self._cancel_timers()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting: the connection is closed."""
        self._cancel_timers()
        super().connection_lost(exc)

    def _start_header_timer(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self.limits.header_timeout_s, self.transport.close)

    def _cancel_timers(self) -> None:
        for timer in (self._header_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        self._header_timer = self._rest_timer = None


def limited_protocol(limits: Limits) -> type[LimitedHttpProtocol]:
    """Return the protocol class with the given limits; uvicorn creates one instance per connection."""
    return type("LimitedHttpProtocol", (LimitedHttpProtocol,), {"limits": limits})

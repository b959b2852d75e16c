"""Bodies and headers that come slowly, or do not end."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import frozen
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from sis_server.errors import ApiError


@frozen
class Limits:
    """What a request may take.

    Attributes:
        body_bytes: of its body.
        seconds: for its headers, and again for its body.
    """

    body_bytes: int = 8 << 20
    seconds: float = 30.0


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body; ApiError 413 when it is too long, 408 when it does not come in time."""
    too_long = ApiError(413, f"the body has more than {limits.body_bytes} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > limits.body_bytes:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise too_long
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {limits.seconds:g} seconds") from None
    return bytes(body)


def http_protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which also closes connections whose headers do not come in time."""

    class BoundedHeaders(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._forget()

        def data_received(self, data: bytes) -> None:
            if self._timer is None and (self.cycle is None or self.cycle.response_complete):
                self._expect()  # another request on a connection that was idle
            super().data_received(data)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._forget()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _expect(self) -> None:
            self._timer = self.loop.call_later(seconds, self._end)

        def _forget(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self) -> None:
            self._timer = None
            self.transport.close()

    return BoundedHeaders

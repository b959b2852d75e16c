"""What a client hears whose answer cannot go on: as an answer, as the last event of a stream, or by a cut."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sis_server.answering import ErrorBody, refusal
from sis_server.errors import ApiError


def body_of(path: str) -> ErrorBody:
    """How the API of a path writes errors."""
    return ApiError.anthropic if path.startswith("/v1/messages") else ApiError.openai


async def end(error: ApiError, started: Message | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Say an error in the way that is left after ``started``, the answer's first message, or None.

    Raises:
        ApiError: an answer has begun that is no stream: the connection is closed before its end, and no client takes
            that for an answer.
    """
    path = scope["path"]
    if started is None:
        return await refusal(error, body_of(path))(scope, receive, send)
    kind = dict(started["headers"]).get(b"content-type", b"")
    if not kind.startswith(b"text/event-stream"):
        raise error
    body = ApiError.of_stream if path == "/v1/responses" else body_of(path)
    name = b"event: error\n" if path.startswith(("/v1/messages", "/v1/responses")) else b""
    event = b"\n" + name + b"data: " + msgspec.json.encode(body(error)) + b"\n\n"
    return await send({"type": "http.response.body", "body": event, "more_body": False})


class Ending:
    """ASGI middleware: an answer that uvicorn cancels, at the deadline of a stop, says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started: Message | None = None
        ended = False

        async def sent(message: Message) -> None:
            nonlocal started, ended
            if message["type"] == "http.response.start":
                started = message
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except asyncio.CancelledError:
            if ended:
                return
            with contextlib.suppress(ApiError):  # uvicorn cuts what returns before its end
                await end(ApiError(503, "the server is shutting down"), started, scope, receive, send)

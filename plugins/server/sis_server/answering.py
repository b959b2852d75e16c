"""How answers leave: JSON at once, or events as they come; and what happens when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sis_server import errors
from sis_server.errors import ApiError

T = TypeVar("T")
A = TypeVar("A")
PING_SECONDS = 10
ErrorBody = Callable[[ApiError], Mapping[str, Any]]
Endpoint = Callable[[A, Request], Awaitable[Response]]
GONE = 499  # nginx's number for a client that left: nobody reads it


class Answer(Response):
    """JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def refusal(error: ApiError, body: ErrorBody = ApiError.openai) -> Answer:
    """An error as an answer."""
    return Answer(body(error), status_code=error.status, headers=error.headers)


def answered_to(body: ErrorBody) -> Callable[[Endpoint[A]], Endpoint[A]]:
    """Make the errors of an endpoint, a method, answers in the form of its API."""

    def wrap(endpoint: Endpoint[A]) -> Endpoint[A]:
        @wraps(endpoint)
        async def safe(api: A, request: Request) -> Response:
            try:
                return await endpoint(api, request)
            except ClientDisconnect:
                return Response(status_code=GONE)
            except Exception as error:
                return refusal(errors.logged(error), body)

        return safe

    return wrap


answered = answered_to(ApiError.openai)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves (ClientDisconnect)."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, leaving):
            if not each.done():
                each.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await each


def streamed(
    events: AsyncGenerator[tuple[str | None, Any]], *, error_event: str | None = None, body: ErrorBody = ApiError.openai
) -> EventSourceResponse:
    """Server-sent events from (name, data); data that is text is sent as it is, other data as JSON.

    An error in the middle is one more event, the last. Comments are sent while there is nothing else.
    """

    async def sent() -> AsyncIterator[ServerSentEvent]:
        async with contextlib.aclosing(events):
            try:
                async for name, data in events:
                    yield _event(name, data)
            except Exception as error:
                yield _event(error_event, body(errors.logged(error)))

    return EventSourceResponse(
        sent(),
        sep="\n",
        ping=PING_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
        headers={"x-accel-buffering": "no"},
    )


def _event(name: str | None, data: Any) -> ServerSentEvent:
    text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    return ServerSentEvent(text, event=name, sep="\n")

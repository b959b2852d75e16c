"""The one endpoint: lets requests in, chooses a replica, and passes on what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, field
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from sis_core.cluster import Remote
from sis_core.errors import LostError, SisError
from sis_core.loading.alike import check_alike
from sis_server import errors
from sis_server.alike import BACK
from sis_server.answering import Answer, refusal
from sis_server.errors import ApiError
from sis_server.receiving import Limits, read_body
from sis_server.replicas.beginnings import Beginnings, blocks

log = logging.getLogger(__name__)

AT_ONCE = 128  # calls that a replica serves beside each other
SPARE = 8  # of them, for clients that leave, and for questions whether it is there
ENDED = object()
RESPONSE = re.compile(rb'"id":\s*"(resp_\w+)"')
MOST_RESPONSES = 1 << 16


@define(eq=False)
class Place:
    """A replica, as the front sees it.

    Attributes:
        open: requests under way.
        there: whether it answers; lost ones come back by themselves.
    """

    remote: Remote
    open: int = 0
    there: bool = True
    n_lost: int = 0
    tickets: set[str] = field(factory=set)


class Front:
    """An ASGI application over replicas. It belongs to one event loop.

    A request that its replica did not begin to answer is 503, with the time after which to try again; a replica that is
    lost in the middle of a stream leaves an error as the stream's last event. Nothing is asked of another replica
    without the client: a request that ends replicas would end them all.
    """

    def __init__(self, remotes: Sequence[Remote], identity: Mapping[str, str], limits: Limits) -> None:
        self._places = [Place(remote) for remote in remotes]
        self._identity, self._limits = identity, limits
        self._beginnings = Beginnings(len(remotes))
        self._responses: OrderedDict[str, int] = OrderedDict()  # who keeps which response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body_of = ApiError.anthropic if scope["path"].startswith("/v1/messages") else ApiError.openai
        try:
            if scope["path"] == "/health":
                await self._health()(scope, receive, send)
                return
            body = await read_body(request, self._limits)
            number = self._choose(body, request.state.salt)
        except ClientDisconnect:
            return
        except Exception as error:
            await refusal(errors.logged(error), body_of)(scope, receive, send)
            return
        await self._pass(number, body, scope, receive, send)

    def _health(self) -> Answer:
        there = [place.there for place in self._places]
        status = "ok" if all(there) else "degraded" if any(there) else "stopped"
        replicas = [
            {"machine": place.remote.where, "there": place.there, "open": place.open, "lost": place.n_lost}
            for place in self._places
        ]
        return Answer({"status": status, "replicas": replicas}, status_code=200 if any(there) else 503)

    def _choose(self, body: bytes, salt: str) -> int:
        """The replica for a request; ApiError 503 when none is there, or all have enough to do."""
        loads = {i: p.open for i, p in enumerate(self._places) if p.there and p.open < AT_ONCE - SPARE}
        if not loads:
            raise ApiError(503, "no replica can take a request now; try again later")
        try:
            asked = json.loads(body) if body else None
        except (ValueError, RecursionError):
            asked = None  # a replica says what is wrong with it
        before = asked.get("previous_response_id") if isinstance(asked, dict) else None
        if isinstance(before, str) and (number := self._responses.get(before)) is not None:
            if number not in loads:
                raise ApiError(503, "the replica that keeps the response before is not there; try again later")
            return number
        found = blocks(asked, salt)
        number = self._beginnings.choose(found, loads)
        self._beginnings.note(number, found)
        return number

    async def _pass(self, number: int, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask a replica, and send what it says; a client that leaves is told to it."""
        place, ticket, loop = self._places[number], uuid.uuid4().hex, asyncio.get_running_loop()
        messages: asyncio.Queue[Any] = asyncio.Queue()

        def put(item: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(messages.put_nowait, item)

        def follow() -> None:
            try:
                for message in place.remote.stream("ask", ticket, _plain(scope), body):
                    put(message)
                put(ENDED)
            except BaseException as error:
                put(error)

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        place.open += 1
        threading.Thread(target=follow, name="sis-front", daemon=True).start()
        leaving = asyncio.ensure_future(gone())
        started: Message | None = None
        try:
            while True:
                getting = asyncio.ensure_future(messages.get())
                await asyncio.wait((getting, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    await asyncio.to_thread(self._leave, place, ticket)
                    return None
                message = getting.result()
                if message is ENDED:
                    return None
                if isinstance(message, BaseException):
                    return await self._failed(number, message, started, scope, receive, send)
                if message["type"] == "http.response.start":
                    started = message
                elif scope["path"] == "/v1/responses" and (kept := RESPONSE.search(message.get("body", b""))):
                    self._keep(kept[1].decode(), number)
                await send(message)
        finally:
            leaving.cancel()
            place.open -= 1

    @staticmethod
    def _leave(place: Place, ticket: str) -> None:
        try:
            place.remote.call("leave", ticket).result()
        except SisError as error:
            log.info("a replica was not told that a client left: %s", error)

    def _keep(self, response: str, number: int) -> None:
        self._responses[response] = number
        self._responses.move_to_end(response)
        if len(self._responses) > MOST_RESPONSES:
            self._responses.popitem(last=False)

    async def _failed(
        self, number: int, error: BaseException, started: Message | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Say it in the way that is left: as an answer, as the last event of a stream, or by an answer cut short."""
        if isinstance(error, LostError):
            self._lost(number, error)
            told = ApiError(503, "the replica that answered has ended; try again")
        else:
            log.error("a replica failed", exc_info=error)
            told = ApiError(500, "a replica failed; the server's log says more")
        anthropic = scope["path"].startswith("/v1/messages")
        if started is None:
            return await refusal(told, ApiError.anthropic if anthropic else ApiError.openai)(scope, receive, send)
        kind = dict(started["headers"]).get(b"content-type", b"")
        if kind.startswith(b"text/event-stream"):
            responses = scope["path"] == "/v1/responses"
            body = told.anthropic() if anthropic else told.of_stream() if responses else told.openai()
            name = b"event: error\n" if anthropic or responses else b""
            event = b"\n" + name + b"data: " + msgspec.json.encode(body) + b"\n\n"
            return await send({"type": "http.response.body", "body": event, "more_body": False})
        raise told  # the connection is closed before its end: no client takes that for an answer

    def _lost(self, number: int, error: LostError) -> None:
        """Ask it nothing more until it is back."""
        place = self._places[number]
        self._beginnings.forget(number)
        if not place.there:
            return
        log.warning("replica %d: %s", number, error)
        place.there = False
        place.n_lost += 1
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._await, args=(place, loop), name="sis-front-back", daemon=True).start()

    def _await(self, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        """Until it is back, and does what the others do."""
        while not loop.is_closed():
            try:
                place.remote.wait(BACK)
                found = place.remote.call("identity").result()
                check_alike({"this server": self._identity, place.remote.where: found})
            except LostError as error:
                log.warning("%s", error)
            except Exception as error:
                log.error("a replica is used no more: %s", error)
                return
            else:
                log.warning("replica on %s is back", place.remote.where)
                place.there = True
                return


def _plain(scope: Scope) -> dict[str, Any]:
    """What a replica needs of a scope, as plain data."""
    kept = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path")
    plain = {name: scope[name] for name in kept if name in scope}
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    return {**plain, "asgi": {"version": "3.0"}, "headers": headers, "client": None, "server": None}

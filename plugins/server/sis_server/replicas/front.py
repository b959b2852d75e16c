"""The one endpoint: lets requests in, chooses a replica, and passes on what it says."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sis_core.cluster import Remote
from sis_core.errors import LostError
from sis_server import errors
from sis_server.answering import Answer, refusal
from sis_server.ending import body_of, end
from sis_server.errors import ApiError
from sis_server.reading import read_object
from sis_server.receiving import Limits, read_body
from sis_server.replicas import everyone
from sis_server.replicas.asking import ENDED, called, followed
from sis_server.replicas.beginnings import Beginnings, blocks
from sis_server.replicas.places import PATIENCE, Place, Places, State
from sis_server.replicas.replica import plain

log = logging.getLogger(__name__)

AT_ONCE = 128  # calls that a replica serves beside each other
SPARE = 8  # of them, for clients that leave, and for questions whether it is there
RESPONSE = re.compile(rb'"id":\s*"(resp_\w+)"')
MOST_RESPONSES = 1 << 16
DRAIN = re.compile(r"/replicas/(\d{1,9})/drain")


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    """What becomes of a replica whose requests have ended."""

    then: Literal["restart", "end"] = "restart"


class Front:
    """An ASGI application over replicas. It belongs to one event loop.

    A request that its replica did not begin to answer is 503, with the time after which to try again; a replica that is
    lost in the middle of a stream leaves an error as the stream's last event. Nothing is asked of another replica
    without the client: a request that ends replicas would end them all.
    """

    def __init__(self, remotes: Sequence[Remote], identity: Mapping[str, str], limits: Limits) -> None:
        self._beginnings = Beginnings(len(remotes))
        self._places = Places(remotes, identity, self._beginnings.forget)
        self._limits = limits
        self._responses: OrderedDict[str, int] = OrderedDict()  # who keeps which response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self._places.watch()
        request = Request(scope, receive)
        try:
            if (page := await self._page(request)) is not None:
                await page(scope, receive, send)
                return
            body = await read_body(request, self._limits)
            place = self._choose(body, request.state.salt)
        except ClientDisconnect:
            return
        except Exception as error:
            await refusal(errors.logged(error), body_of(scope["path"]))(scope, receive, send)
            return
        await self._pass(place, body, scope, receive, send)

    async def _page(self, request: Request) -> Response | None:
        """What is answered here, since it is about several replicas; None for what one of them answers."""
        path, places = request.scope["path"], self._places.all
        if path == "/health":
            status = self._places.status
            told = {"status": status, "replicas": [place.told() for place in places]}
            return Answer(told, status_code=503 if status == "stopped" else 200)
        if request.method == "POST" and (found := DRAIN.fullmatch(path)):
            return self._drain(int(found[1]), await read_body(request, self._limits))
        if request.method == "GET" and path == "/metrics":
            return await everyone.metrics(places, request.scope)
        if request.method == "GET" and path == "/slots":
            return await everyone.slots(places, request.scope)
        if request.method == "GET" and path.startswith("/traces/"):
            return await everyone.trace(places, request.scope)
        return None

    def _drain(self, number: int, body: bytes) -> Response:
        if number >= len(self._places.all):
            raise ApiError(404, f"the replicas are 0 to {len(self._places.all) - 1}")
        place = self._places.all[number]
        try:
            wanted = msgspec.convert(read_object(body or b"{}"), Drain)
        except msgspec.ValidationError as error:
            raise ApiError(400, f"{error}") from None
        if not place.there:
            raise ApiError(409, f"replica {number} is {place.state.value}")
        self._places.drain(place, end=wanted.then == "end")
        return Answer({"replica": number, **place.told()}, status_code=202)

    def _choose(self, body: bytes, salt: str) -> Place:
        """The replica for a request; ApiError 503 when none is ready, or all have enough to do."""
        places = self._places.all
        loads = {p.number: p.open for p in places if p.state is State.READY and p.open < AT_ONCE - SPARE}
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
            return places[number]
        found = blocks(asked, salt)
        number = self._beginnings.choose(found, loads)
        self._beginnings.note(number, found)
        return places[number]

    async def _pass(self, place: Place, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask a replica, and send what it says; a client that leaves is told to it."""
        ticket = uuid.uuid4().hex

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        place.open += 1
        place.n_requests += 1
        messages = followed(place.remote, "ask", ticket, plain(scope), body)
        place.heard.add(messages)
        leaving = asyncio.ensure_future(gone())
        started: Message | None = None
        try:
            while True:
                getting = asyncio.ensure_future(messages.get())
                await asyncio.wait((getting, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    await self._leave(place, ticket)
                    return None
                message = getting.result()
                if message is ENDED:
                    return None
                if isinstance(message, BaseException):
                    return await self._failed(place, message, started, scope, receive, send)
                if message["type"] == "http.response.start":
                    started = message
                elif scope["path"] == "/v1/responses" and (kept := RESPONSE.search(message.get("body", b""))):
                    self._keep(kept[1].decode(), place.number)
                await send(message)
        finally:
            leaving.cancel()
            place.heard.discard(messages)
            place.open -= 1
            self._places.left(place)

    @staticmethod
    async def _leave(place: Place, ticket: str) -> None:
        try:
            await asyncio.wait_for(called(place.remote, "leave", ticket), PATIENCE)
        except Exception as error:
            log.info("a replica was not told that a client left: %s", error)

    def _keep(self, response: str, number: int) -> None:
        self._responses[response] = number
        self._responses.move_to_end(response)
        if len(self._responses) > MOST_RESPONSES:
            self._responses.popitem(last=False)

    async def _failed(
        self, place: Place, error: BaseException, started: Message | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Say it in the way that is left."""
        if isinstance(error, LostError):
            self._places.lost(place, error)
            told = ApiError(503, "the replica that answered has ended; try again")
        else:
            log.error("a replica failed", exc_info=error)
            told = ApiError(500, "a replica failed; the server's log says more")
        await end(told, started, scope, receive, send)

"""A server without a socket, on another machine: requests come and answers leave as the messages of ASGI."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen
from starlette.types import ASGIApp, Message, Scope

from sis_core.errors import ClosedError
from sis_core.loading.alike import identity
from sis_core.loading.recipe import Recipe
from sis_core.texts.language_model import load
from sis_server.app import make_app
from sis_server.guard import Rules
from sis_server.metrics import Metrics
from sis_server.models import Models
from sis_server.receiving import Limits
from sis_server.room import cache_tokens_for
from sis_server.served import Served


@frozen
class Serving:
    """What `sis serve` was told, as plain data.

    Attributes:
        names: of the model; empty for that of its file.
        rules: who may ask: looked at here again, for it is the key whose texts share their beginnings.
        grace: seconds that replies have to end.
    """

    names: tuple[str, ...]
    template: str | None
    cache_tokens: int | None
    stall: float
    queue_limit: int
    rules: Rules
    limits: Limits
    grace: float


class Replica:
    """A model, its engine and the application over it, whose event loop has a thread of its own."""

    def __init__(self, recipe: Recipe, serving: Serving) -> None:
        options = attrs.asdict(recipe.options)
        model = load(recipe.path, preset=recipe.preset, registry=recipe.registry(), **options)
        metrics, models = Metrics(), Models()
        self._served = Served(
            model, serving.names or (model.path.stem,), template=serving.template,
            cache_tokens=serving.cache_tokens or cache_tokens_for(model), stall=serving.stall,
            queue_limit=serving.queue_limit, metrics=metrics,
        )  # fmt: skip
        self._served.engine.start()
        models.pin(self._served)
        self._app: ASGIApp = make_app(models, metrics, serving.rules, serving.limits)
        self._grace = serving.grace
        self._gone: dict[str, asyncio.Event] = {}  # by ticket: whose client has left
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sis-replica", daemon=True)
        self._thread.start()

    def identity(self) -> dict[str, str]:
        """See `sis_core.loading.alike.identity`."""
        return identity(self._served.model)

    def about(self) -> dict[str, Any]:
        """What people are told of it."""
        served = self._served
        return {"id": served.id, "n_ctx": served.engine.n_ctx, "cache_tokens": served.cache_tokens}

    def alive(self) -> None:
        """Answers where its event loop does; ClosedError when its engine has ended."""
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()
        if not self._served.engine.alive:
            raise ClosedError("the engine has ended", where="replica")

    def ask(self, ticket: str, scope: Mapping[str, Any], body: bytes) -> Iterator[Message]:
        """The messages that answer a request, as they come; `leave` with the same ticket ends it early."""
        messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        answering = asyncio.run_coroutine_threadsafe(self._answer(ticket, dict(scope), body, messages), self._loop)
        while (message := messages.get()) is not None:
            yield message
        answering.result()

    def leave(self, ticket: str) -> None:
        """Whoever asked has gone; no error where all was said."""

        def leave() -> None:
            if (gone := self._gone.get(ticket)) is not None:
                gone.set()

        self._loop.call_soon_threadsafe(leave)

    async def _answer(
        self, ticket: str, scope: dict[str, Any], body: bytes, messages: queue.SimpleQueue[Message | None]
    ) -> None:
        gone = self._gone[ticket] = asyncio.Event()
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Message:
            if (part := next(parts, None)) is not None:
                return part
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            messages.put({**message, "headers": list(message["headers"])} if "headers" in message else dict(message))

        try:
            await self._app(scope, receive, send)
        finally:
            del self._gone[ticket]
            messages.put(None)

    def close(self) -> None:
        """Answers have their time to end; then the model is freed."""
        self._served.engine.close(self._grace)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._served.close()


def plain(scope: Scope) -> dict[str, Any]:
    """What a replica needs of a scope, as plain data."""
    kept = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path")
    found = {name: scope[name] for name in kept if name in scope}
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    return {**found, "asgi": {"version": "3.0"}, "headers": headers, "client": None, "server": None}

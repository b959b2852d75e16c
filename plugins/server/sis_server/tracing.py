"""Where the time of each request went: kept for who asks, and one line of the log."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import OrderedDict
from typing import Any

from attrs import define, field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sis_core.chat import Usage
from sis_server.engine import Times

log = logging.getLogger(__name__)
KEPT = 1024  # requests
HEADER = "x-request-id"
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_QUIET = ("/health", "/metrics", "/slots", "/page/")  # asked again and again


@define
class TextTrace:
    """One text of a request."""

    n_prompt: int
    times: Times = field(factory=Times)
    n_cached: int = 0
    n_generated: int = 0
    reason: str | None = None

    def told(self) -> dict[str, Any]:
        """Seconds in the queue, with the prompt, to the first token from the beginning, and with the reply."""
        times = self.times
        return {
            "prompt_tokens": self.n_prompt,
            "cached_tokens": self.n_cached,
            "generated_tokens": self.n_generated,
            "reason": self.reason,
            "queue": _between(times.arrived, times.admitted),
            "prefill": _between(times.admitted, times.first),
            "first_token": _between(times.arrived, times.first),
            "decode": _between(times.first, times.ended),
        }


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(end - start, 6)


@define
class Trace:
    """One request.

    Attributes:
        id: what the client called it, or what it is told.
        salt: of the caller's key: nobody else may ask.
        status: of the answer; None until it begins.
        seconds: until the answer had been sent.
    """

    id: str
    method: str
    path: str
    salt: str = ""
    status: int | None = None
    model: str | None = None
    seconds: float | None = None
    _began: float = field(factory=time.perf_counter)
    _texts: dict[int, TextTrace] = field(factory=dict)

    def begin(self, index: int, n_prompt: int) -> Times:
        """A text is put in; what is returned is to be filled in."""
        text = self._texts[index] = TextTrace(n_prompt)
        return text.times

    def end(self, index: int, reason: str, usage: Usage) -> None:
        """It has come to its end."""
        text = self._texts[index]
        text.reason, text.n_cached, text.n_generated = reason, usage.n_cached, usage.n_generated

    def close(self) -> None:
        """The answer has been sent, or nobody waits for it."""
        self.seconds = time.perf_counter() - self._began

    def told(self) -> dict[str, Any]:
        """As JSON has it; times are seconds."""
        return {
            "id": self.id,
            "method": self.method,
            "path": self.path,
            "model": self.model,
            "status": self.status,
            "seconds": None if self.seconds is None else round(self.seconds, 6),
            "texts": [text.told() for _, text in sorted(self._texts.items())],
        }


class Traces:
    """The last `KEPT` requests."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Trace] = OrderedDict()

    def add(self, trace: Trace) -> None:
        self._kept[trace.id] = trace
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def find(self, id: str, salt: str) -> Trace | None:
        """The request of that id, where it was the same key's."""
        trace = self._kept.get(id)
        return trace if trace is not None and trace.salt == salt else None


class Traced:
    """ASGI middleware: gives each request its `Trace` as ``state.trace``, and the answer its id."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app, self._traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        given = Headers(scope=scope).get(HEADER, "")
        id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        trace = state["trace"] = Trace(id, scope["method"], scope["path"][:200], state.get("salt", ""))

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                MutableHeaders(scope=message)[HEADER] = id
            await send(message)

        self._traces.add(trace)
        try:
            await self._app(scope, receive, sent)
        finally:
            trace.close()
            if not trace.path.startswith(_QUIET):
                log.info("%s %s %s", trace.method, trace.path, trace.status, extra={"request": trace.told()})

"""The one stream of events that every API renders: texts on their way from the engine to a client."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack

from attrs import frozen

from sis_core.cache.pages import PAGE_SIZE
from sis_core.chat import CallEnd, Content, Event, Finish, ReplyParser, Usage
from sis_core.texts.request import Piece, Request
from sis_server import errors
from sis_server.engine import Caller, Engine
from sis_server.engines import Engines
from sis_server.metrics import Waits
from sis_server.tracing import Trace

AT_ONCE = 64
"""Texts of one request that are put in beside each other."""


class PlainText:
    """A parser for a text that is nothing but a text."""

    def push(self, piece: str) -> list[Event]:
        return [Content(str(piece))] if piece else []

    def end(self) -> list[Event]:
        return []


@frozen
class Heard:
    """One piece of a text, and what it made certain; the last of a text ends with its `Finish`.

    Attributes:
        index: which of the request's texts.
        seconds: since the request came in.
    """

    index: int
    piece: Piece
    events: tuple[Event, ...]
    seconds: float


def follow(
    engine: Engine | Engines,
    waits: Waits,
    requests: Sequence[Request],
    parsers: Sequence[ReplyParser],
    trace: Trace,
    held: ExitStack,
) -> AsyncGenerator[Heard]:
    """Put requests in, and say what is heard of each until all have ended. They end early with ``held``.

    What happens is noted in ``trace``. Of those with one prompt the others follow when the first has read it: they
    share its pages. Of more than `AT_ONCE` the others follow as the first end, so that nobody waits for all of them.

    Raises:
        ApiError: the queue is full; while it is listened to, a text failed.
    """
    loop, inbox = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Piece]]()
    caller, began = Caller(), time.perf_counter()

    def submit(index: int) -> None:
        def outlet(piece: Piece) -> None:
            loop.call_soon_threadsafe(inbox.put_nowait, (index, piece))

        times = trace.begin(index, len(requests[index].prompt))
        held.callback(engine.cancel, engine.submit(requests[index], outlet, times, caller))

    later = _followers(requests)
    next_ones = deque(sorted(set(range(len(requests))).difference(*later.values())))
    n_first = min(AT_ONCE, len(next_ones))
    for _ in range(n_first):
        submit(next_ones.popleft())

    async def heard() -> AsyncGenerator[Heard]:
        last = began
        n_generated, called = [0] * len(requests), [False] * len(requests)
        to_come, n_open = len(requests), n_first
        while to_come:
            index, piece = await inbox.get()
            now = time.perf_counter()
            (waits.gap if any(n_generated) else waits.first_token).observe(now - last)
            last = now
            if piece.error is not None:
                raise errors.of(piece.error)
            next_ones.extendleft(reversed(later.pop(index, ())))
            n_open -= piece.finish_reason is not None
            while next_ones and n_open < AT_ONCE:
                submit(next_ones.popleft())
                n_open += 1
            n_generated[index] += piece.token is not None
            events = parsers[index].push(piece)
            if piece.finish_reason is not None:
                events += parsers[index].end()
            called[index] |= any(isinstance(event, CallEnd) for event in events)
            if piece.finish_reason is not None:
                to_come -= 1
                reason: str = piece.finish_reason
                if called[index] and reason in ("end", "stop"):
                    reason = "tool_calls"
                usage = Usage(len(requests[index].prompt), piece.n_cached, n_generated[index])
                events.append(Finish(reason, usage))
                trace.end(index, reason, usage)
            yield Heard(index, piece, tuple(events), now - began)

    return heard()


def _followers(requests: Sequence[Request]) -> dict[int, list[int]]:
    """For each first request with a prompt of more than a page, the others that have the same."""
    first: dict[tuple[int, ...], int] = {}
    found: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        if len(request.prompt) <= PAGE_SIZE or request.reads_prompt:
            continue
        leader = first.setdefault(tuple(request.prompt), index)
        if leader != index:
            found.setdefault(leader, []).append(index)
    return found

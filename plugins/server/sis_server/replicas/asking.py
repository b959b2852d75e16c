"""Calls of replicas from an event loop. Each waits on a thread of its own: a replica that hangs keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from sis_core.cluster import Remote

ENDED = object()
"""What comes after the last of what a generator yields."""


def on_thread(function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
    """What a function returns or raises, when it does."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def settle(set: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            set(value)

    def run() -> None:
        try:
            found = function(*arguments)
        except BaseException as error:
            _tell(loop, settle, answer.set_exception, error)
        else:
            _tell(loop, settle, answer.set_result, found)

    threading.Thread(target=run, name="sis-front", daemon=True).start()
    return answer


def called(remote: Remote, method: str, *arguments: Any) -> asyncio.Future[Any]:
    """The answer to a call."""
    return on_thread(lambda: remote.call(method, *arguments).result())


def followed(remote: Remote, method: str, *arguments: Any) -> asyncio.Queue[Any]:
    """What a generator of a replica yields, as it comes; then `ENDED`, or what it raised."""
    loop, items = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def run() -> None:
        try:
            for item in remote.stream(method, *arguments):
                _tell(loop, items.put_nowait, item)
            _tell(loop, items.put_nowait, ENDED)
        except BaseException as error:
            _tell(loop, items.put_nowait, error)

    threading.Thread(target=run, name="sis-front", daemon=True).start()
    return items


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(function, *arguments)

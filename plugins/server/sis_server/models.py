"""The models of a server by name: opened when they are asked for, closed when nobody has used them for a while."""

from __future__ import annotations

import asyncio
import glob
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio.to_thread
from attrs import define, field
from starlette.types import ASGIApp, Receive, Scope, Send

from sis_core.errors import MemoryLimitError, SisError
from sis_core.machine.memory import available_memory
from sis_server.catalogue import PART, Catalogue
from sis_server.errors import ApiError
from sis_server.served import Served

log = logging.getLogger(__name__)

Opener = Callable[[str, str], Served]
"""Opens the model of a name and a reference, and starts its engine. Slow: called on a worker."""

HEADROOM = 2  # of a file's size, for its packed copy and a cache


@define(eq=False)
class Open:
    """A model in memory.

    Attributes:
        state: what its file was when it was opened; see `_state`.
        users: requests that have not been answered.
        pinned: stays open.
    """

    served: Served
    state: object
    pinned: bool = False
    users: int = 0
    used: float = field(factory=time.monotonic)


class Models:
    """What a server offers. Everything but `close` belongs to one event loop.

    A name's model is opened by the first request for it. When its file has changed since, the next request opens the
    new one, while the replies of the old one go on to their end. Where there is no memory for a model, those that
    nobody uses are closed, the longest unused first.

    Args:
        idle: seconds after which a model that nobody uses is closed; None for never.
    """

    def __init__(self, catalogue: Catalogue | None = None, opener: Opener | None = None, *, idle: float | None = None):
        self._catalogue, self._opener, self._idle = catalogue or Catalogue(), opener, idle
        self._open: dict[str, Open] = {}  # by every name
        self._replaced: list[Open] = []  # in use, and another file has their name now
        self._opening = asyncio.Lock()  # one at a time: each looks at what memory is free
        self._tasks: set[asyncio.Task[Any]] = set()

    def pin(self, served: Served) -> None:
        """Offer a model whose engine runs, before all others and for good."""
        opened = Open(served, None, pinned=True)
        self._open.update(dict.fromkeys(served.names, opened))

    @property
    def alive(self) -> bool:
        """Whether the engines of all open models run."""
        return all(served.engine.alive for served in self.served())

    def served(self) -> list[Served]:
        """The models that are open, each once."""
        return list(dict.fromkeys(opened.served for opened in [*self._open.values(), *self._replaced]))

    async def names(self) -> dict[str, Served | None]:
        """What is offered, and what is open of it; the first is used where a request names none."""
        found = await anyio.to_thread.run_sync(self._catalogue.found)
        names: dict[str, Served | None] = {name: each.served for name, each in self._open.items() if each.pinned}
        for name in found:
            opened = self._open.get(name)
            names.setdefault(name, opened.served if opened else None)
        return names

    async def get(self, name: str) -> Served | None:
        """The model of a name, where it is open; ApiError 404 where there is none of that name."""
        names = await self.names()
        if name not in names:
            raise _unknown(name)
        return names[name]

    async def use(self, name: str | None, held: ExitStack) -> Served:
        """The model of a name, open until ``held`` is closed; the first where no name is given.

        ApiError 404 when there is none of that name, 503 when there is no memory for it, 500 when it cannot be opened.
        """
        if name is None:
            name = next(iter(await self.names()), None)
            if name is None:
                raise ApiError(404, "there is no model", code="model_not_found", param="model")
        opened = self._open.get(name)
        if opened is None or not opened.pinned:
            opened = await self._opened(name)
        opened.users += 1
        held.callback(self._leave, opened)
        return opened.served

    async def _opened(self, name: str) -> Open:
        reference = (await anyio.to_thread.run_sync(self._catalogue.found)).get(name)
        if reference is None:
            raise _unknown(name)
        state = await anyio.to_thread.run_sync(_state, reference)
        if self._is_open(name, state):
            return self._open[name]
        async with self._opening:
            if self._is_open(name, state):
                return self._open[name]
            if name in self._open:
                log.info("the file of %s has changed", name)
                self._set_aside(self._open[name])
            assert self._opener is not None
            served = await self._open_in_memory(self._opener, name, reference)
            opened = self._open[name] = Open(served, state)
            return opened

    def _is_open(self, name: str, state: object) -> bool:
        opened = self._open.get(name)
        return opened is not None and opened.state == state

    async def _open_in_memory(self, opener: Opener, name: str, reference: str) -> Served:
        size = await anyio.to_thread.run_sync(_size, reference)
        while size * HEADROOM > available_memory() and await self._close_one():
            pass
        while True:
            try:
                return await anyio.to_thread.run_sync(opener, name, reference)
            except MemoryLimitError as error:
                if not await self._close_one():
                    log.warning("no memory for %s: %s", name, error)
                    raise ApiError(503, f"there is no memory for {name!r:.100} beside the models in use") from None
            except SisError as error:
                log.error("%s cannot be opened: %s", name, error)
                raise ApiError(500, f"{name!r:.100} cannot be opened; the server's log says why") from None

    def _set_aside(self, opened: Open) -> None:
        """Offer a model no more; it closes when its last user has gone."""
        self._forget(opened)
        if opened.users:
            self._replaced.append(opened)
        else:
            self._later(_close(opened))

    def _leave(self, opened: Open) -> None:
        opened.users -= 1
        opened.used = time.monotonic()
        if opened.users or opened.pinned:
            return
        if opened in self._replaced:
            self._replaced.remove(opened)
            self._later(_close(opened))
        elif self._idle is not None:
            asyncio.get_running_loop().call_later(self._idle, self._close_if_idle, opened, opened.used)

    def _close_if_idle(self, opened: Open, since: float) -> None:
        if not opened.users and opened.used == since and opened in self._open.values():
            self._forget(opened)
            self._later(_close(opened))

    async def _close_one(self) -> bool:
        """Close the model that has been unused the longest; False when all are in use."""
        unused = [opened for opened in self._open.values() if not opened.users and not opened.pinned]
        if not unused:
            return False
        longest = min(unused, key=lambda opened: opened.used)
        self._forget(longest)
        await _close(longest)
        return True

    def _forget(self, opened: Open) -> None:
        self._open = {name: each for name, each in self._open.items() if each is not opened}

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Close all, when the event loop has ended."""
        for served in self.served():
            served.close()


async def _close(opened: Open) -> None:
    log.info("%s is closed", opened.served.id)
    await anyio.to_thread.run_sync(opened.served.close)


def _unknown(name: str) -> ApiError:
    return ApiError(404, f"there is no model {name!r:.100}", code="model_not_found", param="model")


def _state(reference: str) -> object:
    """What tells whether a file is another one than before; None for what is no file here."""
    try:
        found = Path(reference).expanduser().stat()
    except (OSError, RuntimeError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _size(reference: str) -> int:
    """Bytes of a file and of its other parts; 0 for what is no file here."""
    path = Path(reference).expanduser()
    try:
        part = PART.fullmatch(path.stem)
        parts = path.parent.glob(f"{glob.escape(part['stem'])}-*-of-*.gguf") if part else [path]
        return sum(each.stat().st_size for each in parts)
    except (OSError, RuntimeError, ValueError):
        return 0


class Holding:
    """ASGI middleware: what a request holds in ``state.held`` is let go when its answer has been sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as held:
            scope.setdefault("state", {})["held"] = held
            await self._app(scope, receive, send)

"""Replicas as the front sees them: which may be asked, and how those that are lost, hang or are drained come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import Enum
from typing import Any

from attrs import define, field

from sis_core.cluster import Remote
from sis_core.errors import LostError
from sis_core.loading.alike import check_alike
from sis_server.alike import BACK
from sis_server.replicas.asking import called, on_thread

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds between two questions whether a replica is alive
PATIENCE = 30.0  # seconds that it may take to answer


class State(Enum):
    """Whether a replica is asked."""

    READY = "ready"
    DRAINING = "draining"  # it goes on with what it has
    AWAY = "away"  # lost, or on its way back
    ENDED = "ended"  # drained, and not wanted back


@define(eq=False)
class Place:
    """A replica.

    Attributes:
        open: requests under way.
        n_requests: those that it was asked.
        n_lost: how often it was lost.
        end: whether it is to end once it is drained, instead of coming back.
        heard: what comes of its requests.
    """

    number: int
    remote: Remote
    state: State = State.READY
    open: int = 0
    n_requests: int = 0
    n_lost: int = 0
    end: bool = False
    heard: set[asyncio.Queue[Any]] = field(factory=set)

    @property
    def there(self) -> bool:
        return self.state in (State.READY, State.DRAINING)

    def told(self) -> dict[str, Any]:
        """For `/health`."""
        return {
            "machine": self.remote.where, "state": self.state.value, "there": self.there, "open": self.open,
            "lost": self.n_lost,
        }  # fmt: skip


class Places:
    """All replicas. They belong to one event loop.

    Args:
        identity: what all of them have, and those that come back too.
        gone: hears the number of one that no longer knows what it has read.
    """

    def __init__(self, remotes: Sequence[Remote], identity: Mapping[str, str], gone: Callable[[int], None]) -> None:
        self.all = [Place(number, remote) for number, remote in enumerate(remotes)]
        self._identity, self._gone = identity, gone
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def status(self) -> str:
        """``ok`` where all that are wanted are ready, ``degraded`` where some are, else ``stopped``."""
        wanted = [place.state is State.READY for place in self.all if place.state is not State.ENDED]
        return "stopped" if not any(wanted) else "ok" if all(wanted) else "degraded"

    def watch(self) -> None:
        """Begin to ask replicas whether they are alive; again is no error."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            for place in self.all:
                self._start(self._watch(place))

    def drain(self, place: Place, *, end: bool) -> None:
        """Ask it nothing more; when its requests have ended it is started again, or ended."""
        place.state, place.end = State.DRAINING, end
        self.left(place)

    def left(self, place: Place) -> None:
        """One of its requests may have been the last."""
        if place.state is State.DRAINING and not place.open:
            self._go(place, restart=True)

    def lost(self, place: Place, error: LostError, *, restart: bool = False) -> None:
        """Ask it nothing more until it is back; what it was asked ends.

        Args:
            restart: its process may still be there.
        """
        if place.there:
            log.warning("replica %d: %s", place.number, error)
            place.n_lost += 1
            for queue in place.heard:
                queue.put_nowait(error)
            self._go(place, restart=restart)

    def _go(self, place: Place, *, restart: bool) -> None:
        wanted = not (place.state is State.DRAINING and place.end)
        place.state = State.AWAY if wanted else State.ENDED
        self._gone(place.number)
        self._start(self._back(place, restart=restart) if wanted else self._end(place))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # a loop keeps no task alive
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, place: Place) -> None:
        while True:
            await asyncio.sleep(EVERY)
            if not place.there:
                continue
            try:
                await asyncio.wait_for(called(place.remote, "alive"), PATIENCE)
            except TimeoutError:
                silent = LostError(f"has not answered for {PATIENCE:g} seconds", where=place.remote.where)
                self.lost(place, silent, restart=True)
            except LostError as error:
                self.lost(place, error)
            except Exception as error:
                self.lost(place, LostError(str(error), where=place.remote.where), restart=True)

    async def _end(self, place: Place) -> None:
        await on_thread(place.remote.close)
        log.warning("replica %d on %s was drained, and has ended", place.number, place.remote.where)

    async def _back(self, place: Place, *, restart: bool) -> None:
        """Until it is back, and does what the others do."""
        if restart:
            await on_thread(place.remote.restart)
        while True:
            try:
                await on_thread(place.remote.wait, BACK)
                found = await called(place.remote, "identity")
                check_alike({"this server": self._identity, place.remote.where: found})
            except LostError as error:
                log.warning("%s", error)
            except Exception as error:
                log.error("a replica is used no more: %s", error)
                return
            else:
                log.warning("replica %d on %s is back", place.number, place.remote.where)
                place.state = State.READY
                return

"""Closing without pulling the ground from under a running call."""

from __future__ import annotations

import threading
from types import TracebackType

from sis_core.errors import ClosedError
from sis_core.machine.lock import Lock


class Gate:
    """Knows who is inside; `close` lets nobody in any more and waits for those. Used as a context manager.

    It knows threads, since Ctrl-C may keep a thread from saying that it left: whoever closes is not inside, whatever it
    said before, and a thread that enters again has left. So a thread that is inside must not enter again. In a forked
    child nobody is inside but the thread that forked.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._inside: set[int] = set()
        self._closed = False
        self._drained = False
        self._lock = Lock()

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> None:
        self._forget_other_processes()
        with self._lock:
            if self._closed:
                raise ClosedError("is closed", where=self._what, fix="load it again")
            self._inside.add(threading.get_ident())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside.discard(threading.get_ident())
            if self._closed:
                self._lock.notify()

    def close(self) -> bool:
        """Let nobody in any more and wait for those inside. True for the one caller that should free things.

        An interrupted wait can be repeated.
        """
        self._forget_other_processes()
        with self._lock:
            self._closed = True
            self._inside.discard(threading.get_ident())
            self._lock.wait_for(lambda: not self._inside)
            first, self._drained = not self._drained, True
            return first

    def _forget_other_processes(self) -> None:
        if self._lock.inherited:
            self._inside &= {threading.get_ident()}

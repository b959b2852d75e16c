"""Closing without pulling the ground from under a running call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

from sis_core.errors import ClosedError
from sis_core.machine.lock import Lock


class Gate:
    """A context manager that knows who is inside; `close` lets nobody in any more, and frees when nobody is.

    It knows threads, since Ctrl-C may keep a thread from saying that it left: a thread that enters again has left, so a
    thread that is inside must not enter again. In a forked child nobody is inside but the thread that forked.

    Going in and out takes no lock: who enters is noted before it asks whether the gate is closed, and `close` closes it
    before it asks who is inside, so one of the two sees the other.
    """

    def __init__(self, what: str, free: Callable[[], None]) -> None:
        self._what, self._free = what, free
        self._inside: set[int] = set()
        self._closed = False
        self._freed = False
        self._lock = Lock()
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> None:
        if self._pid != os.getpid():
            self._forget_other_processes()
        self._inside.add(threading.get_ident())  # before the question: a signal handler may close in between
        if self._closed:
            self._leave()
            raise ClosedError("is closed", where=self._what, fix="load it again")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.discard(threading.get_ident())
        if self._closed:
            self._leave()

    def close(self) -> None:
        """Let nobody in any more, wait for the other threads inside, and free.

        Where the caller is inside itself, which a signal handler can be, it frees when it leaves. An interrupted wait
        can be repeated.
        """
        self._forget_other_processes()
        me = threading.get_ident()
        with self._lock:
            self._closed = True
            self._lock.wait_for(lambda: self._inside <= {me})
            self._free_if_empty()

    def _leave(self) -> None:
        """Leave a gate that is closed: somebody may wait for that."""
        with self._lock:
            self._inside.discard(threading.get_ident())
            self._lock.notify()
            self._free_if_empty()

    def _free_if_empty(self) -> None:
        if not self._inside and not self._freed:
            self._freed = True
            self._free()

    def _forget_other_processes(self) -> None:
        with self._lock:  # one thread at a time: the next must not forget the first
            if self._pid != os.getpid():
                self._inside &= {threading.get_ident()}
                self._pid = os.getpid()

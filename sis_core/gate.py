"""Closing without pulling the ground from under a running call."""

from __future__ import annotations

import threading
from types import TracebackType

from sis_core.errors import ClosedError


class Gate:
    """Counts calls in flight; `close` lets no new one in and waits for those inside. Used as a context manager."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._inside = 0
        self._closed = False
        self._drained = False
        self._changed = threading.Condition()

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> None:
        with self._changed:
            if self._closed:
                raise ClosedError("is closed", where=self._what, fix="load it again")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> bool:
        """Let nobody in any more and wait for those inside. True for the one caller that should free things.

        An interrupted wait can be repeated.
        """
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._inside == 0)
            first, self._drained = not self._drained, True
            return first

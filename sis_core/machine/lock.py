"""A lock that a signal handler and a forked child can take too."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType


class Lock:
    """Reentrant, so that a signal handler that interrupts its holder does not wait for it; and new in a forked child,
    where the thread that may have held it does not exist."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self.condition = threading.Condition(threading.RLock())

    @property
    def inherited(self) -> bool:
        """Whether this process is a child of the one that used the lock last."""
        return self._pid != os.getpid()

    def __enter__(self) -> None:
        if self.inherited:
            self._renew()
        self.condition.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.condition.release()

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Wait, with the lock given up meanwhile, until ``done`` says so after a `notify`."""
        self.condition.wait_for(done)

    def notify(self) -> None:
        """Let those who wait look again."""
        self.condition.notify_all()

"""Python's collector of garbage."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident


class Collector:
    """The collector, of which a process has one, and who is at work without it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._within: Counter[int] = Counter()  # how often each thread is at such work
        self._enable = False  # whether it is to be switched on once nobody is

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No looking for garbage meanwhile, in any thread, for work that makes many objects which stay: going through
        all that a program has imported takes a fifth of the time that loading a model does."""
        thread = get_ident()
        with self._lock:
            if not self._within:
                self._enable = gc.isenabled()
                gc.disable()
            self._within[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                self._within -= Counter((thread,))  # which leaves out who is at none
                self._end()

    def forked(self) -> None:
        """In a child that was forked: threads that were at work are not there, and will not say that they are done."""
        self._lock = Lock()  # one of them may have held it
        thread = get_ident()
        self._within = +Counter({thread: self._within[thread]})
        self._end()

    def _end(self) -> None:
        if self._enable and not self._within:
            gc.enable()
            self._enable = False


_collector = Collector()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_collector.forked)
no_collection = _collector.paused

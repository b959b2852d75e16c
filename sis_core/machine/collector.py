"""Python's collector of garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_within, _enabled = 0, False  # how many are at such work; whether garbage was collected before the first began


@contextmanager
def no_collection() -> Iterator[None]:
    """No looking for garbage meanwhile, in any thread, for work that makes many objects which stay: going through all
    that a program has imported takes a fifth of the time that loading a model does."""
    global _within, _enabled
    with _lock:
        if not _within:
            _enabled = gc.isenabled()
            gc.disable()
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _enabled and not _within:
                gc.enable()

"""Packing between the first steps instead of at load, so that the first token does not wait for it.

Results are the same bits in place and packed, so nobody can tell from a text when a weight was packed.
"""

from __future__ import annotations

import threading
from collections import deque
from time import perf_counter

from sis_core.native.packing import Packing

FEW_ROWS = 64  # steps of more rows turn each row of weights into tiles once for all of theirs, and lose little by it
SHARE = 4  # how many times as long as a step may be spent before the next


class Waiting:
    """Weights in the order in which they are packed. Thread-safe: one thread packs, others go on in place."""

    def __init__(self) -> None:
        self._packings: deque[Packing] = deque()
        self._lock = threading.Lock()
        self._seconds = 0.0  # of the last step of few rows

    def __bool__(self) -> bool:
        return bool(self._packings)

    def add(self, packing: Packing) -> None:
        self._packings.append(packing)

    def before_step(self, n_rows: int) -> None:
        """Pack for some time; at least a piece. Not before the first step: somebody waits for its token."""
        if n_rows >= FEW_ROWS or not self._seconds or self._lock.locked():
            return
        with self._lock:
            started = perf_counter()
            while self._packings:
                packing = self._packings[0]
                if not packing.done:  # it is when Ctrl-C came between this line and the next
                    packing.advance()
                if packing.done:
                    self._packings.popleft()
                if perf_counter() - started >= SHARE * self._seconds:
                    break

    def after_step(self, n_rows: int, seconds: float) -> None:
        """Say how long a step took."""
        if n_rows < FEW_ROWS:
            self._seconds = seconds

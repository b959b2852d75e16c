"""Packing between the first steps instead of at load, so that the first token does not wait for it.

Results are the same bits in place and packed, so nobody can tell from a text when a weight was packed.
"""

from __future__ import annotations

import threading
from collections import deque
from time import perf_counter

from sis_core.backends.native.packing import Packing

SHARE = 4  # how many times as long as a step may be spent before the next,
LONGEST = 0.5  # and how many seconds at most; but what was begun is finished


class Waiting:
    """Weights in the order in which they are packed. Thread-safe: one thread packs, others go on in place."""

    def __init__(self) -> None:
        self._packings: deque[Packing] = deque()
        self._lock = threading.Lock()
        self._seconds = 0.0  # of the last step

    def __bool__(self) -> bool:
        return bool(self._packings)

    def add(self, packing: Packing) -> None:
        self._packings.append(packing)

    def before_step(self) -> None:
        """Pack for some time; at least one weight. Not before the first step: somebody waits for its token.

        A weight is packed whole, since a step would read again what of it has been packed and given back.
        """
        if not self._seconds or self._lock.locked():
            return
        with self._lock:
            stop = perf_counter() + min(SHARE * self._seconds, LONGEST)
            while self._packings:
                packing = self._packings[0]
                while not packing.done:
                    packing.advance()
                self._packings.popleft()
                if perf_counter() >= stop:
                    break

    def after_step(self, seconds: float) -> None:
        """Say how long a step took."""
        self._seconds = seconds

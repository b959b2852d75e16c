"""Packing in the first steps and between them instead of at load, so that the first token does not wait for it.

A step of several rows makes tiles of every weight that it passes, and these stay: it packs the model. Between steps of
few rows, which read fast what is in place, some time is spent on packing.

Results are the same bits in place and packed, so nobody can tell from a text when a weight was packed.
"""

from __future__ import annotations

import threading
from time import perf_counter

from sis_core.backends.native.packing import Packing, Tiles

ROWS = 8  # of a step that packs what it reads
SHARE = 4  # how many times as long as a step may be spent before the next,
LONGEST = 0.5  # and how many seconds at most; but what was begun is finished


class Waiting:
    """Weights in the order in which they are packed. Thread-safe: one thread packs, others go on in place."""

    def __init__(self) -> None:
        self._packings: list[Packing] = []
        self._lock = threading.Lock()
        self._seconds = 0.0  # of the last step

    def __bool__(self) -> bool:
        return bool(self._packings)

    def add(self, packing: Packing) -> None:
        self._packings.append(packing)

    def before_step(self, n_rows: int) -> bool:
        """Whether the step is to keep the tiles that it makes; else pack for some time, at least one weight.

        Not before the first step: somebody waits for its token. A weight is packed whole, since a step would read again
        what of it has been packed and given back. What no step makes is packed before one that keeps, too.
        """
        keep = n_rows >= ROWS
        if not self._seconds or not self._lock.acquire(blocking=False):
            return keep
        try:
            stop = perf_counter() + min(SHARE * self._seconds, LONGEST)
            for packing in list(self._packings):
                if keep and isinstance(packing, Tiles):
                    continue
                while not packing.done:
                    packing.advance()
                self._packings.remove(packing)
                if perf_counter() >= stop:
                    break
        finally:
            self._lock.release()
        return keep

    def after_step(self, seconds: float) -> None:
        """Say how long a step took, and let programs read what it made."""
        self._seconds = seconds
        if not self._lock.acquire(blocking=False):
            return
        try:
            for packing in list(self._packings):
                if isinstance(packing, Tiles) and packing.made_by_steps:
                    packing.arrive()
                    self._packings.remove(packing)
        finally:
            self._lock.release()

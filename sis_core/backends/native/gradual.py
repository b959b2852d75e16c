"""Packing in the first steps and between them instead of at load, so that the first token does not wait for it.

A step of several rows makes tiles of what it reads in place, and they may stay. Memory that was never used may cost
many times as much as the packing itself, where it comes from the host of a virtual machine: so the first step keeps
none, and those after it wait for memory as long as was spent before on tiles that did not stay. That is at most twice
the time of whoever knew how many steps will come (as with skis, which one rents until the rent has reached their price:
Karlin et al. 1988, "Competitive Snoopy Caching"). Between steps of few rows some time is spent on packing.

Results are the same bits in place and packed, so nobody can tell from a text when a weight was packed.
"""

from __future__ import annotations

import ctypes
import threading
from time import perf_counter

from sis_core.backends.native.packing import Packing, Tiles

ROWS = 8  # of a step that packs what it reads
COPY = 0.06  # share of such a step's time in which what needs no tiles is copied
SHARE = 4  # how many times as long as a step may be spent before the next,
LONGEST = 0.5  # and how many seconds at most; but what was begun is finished


class Waiting:
    """Weights in the order in which they are packed. Thread-safe: one thread packs, others go on in place."""

    def __init__(self) -> None:
        self._packings: list[Packing] = []
        self._lock = threading.Lock()
        self._seconds = 0.0  # of the last step
        self._a_row = 0.0  # of the last step of many rows
        self._saved = ctypes.c_int64(0)  # nanoseconds of all threads, as steps count them

    def __bool__(self) -> bool:
        return bool(self._packings)

    def add(self, packing: Packing) -> None:
        if isinstance(packing, Tiles):
            packing.by_steps(self._saved)
        self._packings.append(packing)

    def before_step(self, n_rows: int) -> None:
        """Choose weights that the step packs or, where it has few rows, pack for some time, at least one weight.

        Nothing for the first step: somebody waits for its token. A weight that no step makes is packed whole, since a
        step would read again what of it has been packed and given back, and comes last where there are many rows.
        """
        if not self._seconds or not self._lock.acquire(blocking=False):
            return
        try:
            self._saved.value = max(self._saved.value, 0)  # a whole page came, and the next tiles lie on it
            if n_rows < ROWS:
                self._pack()
            elif tiles := [one for one in self._packings if isinstance(one, Tiles)]:
                for one in tiles:
                    one.keep()
            else:
                self._copy(COPY * max(self._seconds, n_rows * self._a_row))
        finally:
            self._lock.release()

    def _copy(self, seconds: float) -> None:
        stop = perf_counter() + seconds
        for packing in list(self._packings):
            while packing.find_room():
                if perf_counter() >= stop:
                    return
            self._finish(packing)

    def _pack(self) -> None:
        stop = perf_counter() + min(SHARE * self._seconds, LONGEST)
        for packing in list(self._packings):
            self._finish(packing)
            if perf_counter() >= stop:
                return

    def _finish(self, packing: Packing) -> None:
        while not packing.done:
            packing.advance()
        self._packings.remove(packing)

    def after_step(self, n_rows: int, seconds: float) -> None:
        """Say how long a step took, and let programs read what it made."""
        self._seconds = seconds
        if n_rows >= ROWS:
            self._a_row = seconds / n_rows
        if not self._lock.acquire(blocking=False):
            return
        try:
            for packing in list(self._packings):
                if isinstance(packing, Tiles) and packing.made_by_steps:
                    packing.arrive()
                    self._packings.remove(packing)
        finally:
            self._lock.release()

"""Packing in the first steps and between them instead of at load, so that the first token does not wait for it.

A step of several rows makes tiles of what it reads in place, and those of some weights stay. Memory that was never used
may cost several times as much as the packing itself, on virtual machines above all: so the first step keeps none, and
those after it pay by their rows. Between steps of few rows some time is spent on packing.

Results are the same bits in place and packed, so nobody can tell from a text when a weight was packed.
"""

from __future__ import annotations

import threading
from time import perf_counter

from sis_core.backends.native.packing import Packing, Tiles

ROWS = 8  # of a step that packs what it reads
KEPT = 0.5625 / 512  # bytes of tiles for each row and value: a model of 4.5 bits is packed after 512 more rows
SHARE = 4  # how many times as long as a step may be spent before the next,
LONGEST = 0.5  # and how many seconds at most; but what was begun is finished


class Waiting:
    """Weights in the order in which they are packed. Thread-safe: one thread packs, others go on in place."""

    def __init__(self) -> None:
        self._packings: list[Packing] = []
        self._lock = threading.Lock()
        self._seconds = 0.0  # of the last step
        self._values = 0  # of all weights whose tiles steps may make

    def __bool__(self) -> bool:
        return bool(self._packings)

    def add(self, packing: Packing) -> None:
        self._packings.append(packing)
        if isinstance(packing, Tiles):
            self._values += packing.weight.n_rows * packing.weight.n_cols

    def before_step(self, n_rows: int) -> None:
        """Choose weights that the step packs or, where it has few rows, pack for some time, at least one weight.

        Nothing for the first step: somebody waits for its token. A weight is packed whole, since a step would read
        again what of it has been packed and given back. What no step makes comes last where there are many rows.
        """
        if not self._seconds or not self._lock.acquire(blocking=False):
            return
        try:
            if n_rows >= ROWS and any(isinstance(one, Tiles) for one in self._packings):
                self._keep(n_rows * self._values * KEPT)
            else:
                self._pack()
        finally:
            self._lock.release()

    def _keep(self, n_bytes: float) -> None:
        for packing in self._packings:
            if n_bytes <= 0:
                return
            if isinstance(packing, Tiles):
                n_bytes -= packing.keep()

    def _pack(self) -> None:
        stop = perf_counter() + min(SHARE * self._seconds, LONGEST)
        for packing in list(self._packings):
            while not packing.done:
                packing.advance()
            self._packings.remove(packing)
            if perf_counter() >= stop:
                return

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

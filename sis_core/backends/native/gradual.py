"""Packing in the first steps instead of at load, so that the first token does not wait for it.

A step makes tiles of what it reads in place, and they may stay. Memory that was never used may cost many times as much
as the packing itself, where it comes from the host of a virtual machine: so the first step keeps none, and those after
it wait for memory as long as was spent before on tiles that did not stay. That is at most twice the time of whoever
knew how many steps will come (as with skis, which one rents until the rent has reached their price: Karlin et al. 1988,
"Competitive Snoopy Caching"). A step of few rows is seldom the last of its text: the next may wait for twice as long as
it took in any case.

Results are the same bits in place and packed, so nobody can tell from a text when a weight was packed.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Iterator
from time import perf_counter_ns

from sis_core.arrays import U8
from sis_core.backends.native.memory import Arena
from sis_core.backends.native.packing import Packing, Tiles, in_file

FEW = 8  # rows are no longer few
SHARE = 2  # of the time of a step of few rows, for memory


class Waiting:
    """Weights in the order in which they are packed. Thread-safe: one thread packs, others go on in place."""

    def __init__(self, n_threads: int) -> None:
        self._packings: list[Packing] = []
        self._lock = threading.Lock()
        self._n_threads, self._stepped = n_threads, False
        self._fastest = math.inf  # seconds of a step of few rows
        self._n_made, self._idle = 0, False  # tiles that steps have made, and whether the last made none
        self._saved = ctypes.c_int64(0)  # nanoseconds of all threads, as steps count them too

    def __bool__(self) -> bool:
        return bool(self._packings)

    def add(self, packing: Packing, arena: Arena | None) -> None:
        """``arena``: where the weight will lie; None for what steps make no tiles of."""
        if isinstance(packing, Tiles) and arena:
            packing.by_steps(self._saved, arena)
        self._packings.append(packing)

    def rows_in_files(self) -> Iterator[U8]:
        """The rows that lie in files which are mapped to be read."""
        return (rows for packing in self._packings if in_file(rows := packing.weight.raw))

    def before_step(self) -> None:
        """Let tiles stay that the step makes, and pack what the last step had no use for.

        Nothing before the first step: somebody waits for its token.
        """
        if not self._stepped or not self._lock.acquire(blocking=False):
            return
        try:
            self._saved.value = max(self._saved.value, 0)  # a whole page came, and the next tiles lie on it
            for packing in list(self._packings):
                if isinstance(packing, Tiles):
                    packing.keep()
                if self._idle and self._saved.value > 0:
                    self._pack(packing)
            self._n_made = self._count_made()
        finally:
            self._lock.release()

    def _pack(self, packing: Packing) -> None:
        """Pack a weight whole, since a step would read again what of it has been given back, once there is memory."""
        started, saved = perf_counter_ns(), self._saved.value

        def left() -> int:
            self._saved.value = saved - (perf_counter_ns() - started) * self._n_threads
            return self._saved.value

        while packing.find_room():
            if left() <= 0:
                return
        while not packing.done:
            packing.advance()
        self._packings.remove(packing)
        left()

    def after_step(self, n_rows: int, seconds: float) -> None:
        """Say how long a step took, and let programs read what it made."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if n_rows < FEW:
                self._fastest = min(self._fastest, seconds)  # one that did not wait for memory
                self._saved.value = max(self._saved.value, int(SHARE * self._fastest * 1e9) * self._n_threads)
            self._idle = self._stepped and n_rows < FEW and self._count_made() == self._n_made
            self._stepped = True
            for packing in list(self._packings):
                if isinstance(packing, Tiles) and packing.made_by_steps:
                    packing.arrive()
                    self._packings.remove(packing)
        finally:
            self._lock.release()

    def _count_made(self) -> int:
        return sum(packing.n_made for packing in self._packings if isinstance(packing, Tiles))

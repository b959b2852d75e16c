"""Memory for packed weights and for the work of a step."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

from sis_core.arrays import U8
from sis_core.backends.native import abi
from sis_core.errors import MemoryLimitError
from sis_core.machine.memory import MIB

HUGE = 2 << 20  # SIS_PIECE


class Arena:
    """Anonymous memory in huge pages where the system gives them; taken when it is first written.

    Attributes:
        taken: of each piece of `HUGE` bytes, whether native code has taken it.
        record: what it knows of this.
    """

    def __init__(self, n_bytes: int) -> None:
        size = max(n_bytes, 1) + HUGE
        try:
            if hasattr(mmap, "MAP_PRIVATE"):  # shared memory, the default, gets no huge pages on most systems
                self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            else:
                self._map = mmap.mmap(-1, size)
        except (OSError, MemoryError, OverflowError) as error:
            raise MemoryLimitError(
                f"the system does not give {n_bytes / MIB:,.0f} MiB: {error}",
                where="memory",
                fix="ask for a shorter context (--ctx), read weights in place (--no-pack), or raise `ulimit -v`",
            ) from None
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages
                self._map.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(self._map, np.uint8)
        start = -int(whole.__array_interface__["data"][0]) % HUGE
        self.array: U8 = whole[start : start + max(n_bytes, 1)]
        self.taken: U8 = np.zeros(-(-len(self.array) // HUGE), np.uint8)
        self.address = int(self.array.__array_interface__["data"][0])
        self._used = 0
        self.record = abi.Memory(self.address, len(self.array), self.taken.__array_interface__["data"][0])

    def take(self, n_bytes: int) -> int:
        """The address of the next ``n_bytes``, on a border of 64."""
        start = self._used
        self._used += -(-n_bytes // 64) * 64
        assert self._used <= len(self.array), "an arena was planned too small"
        return self.address + start


def aligned(n_bytes: int) -> U8:
    """Uninitialised bytes that begin on a border of 64."""
    whole = np.empty(n_bytes + 64, np.uint8)
    start = -int(whole.__array_interface__["data"][0]) % 64
    return whole[start : start + n_bytes]

"""Memory between guards: whoever writes outside of what is his is found, or reads behind it."""

from __future__ import annotations

import ctypes
import mmap
import sys
import types
from typing import Any

import numpy as np
import pytest

from sis_core.arrays import U8
from sis_core.backends.native.memory import aligned

GUARD = 4096  # bytes


def between_guards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[U8, int]]:
    """From now on results and workspaces lie between guards and hold nothing but NaN; all of them, and their sizes."""
    guards: list[tuple[U8, int]] = []

    def guarded(n_bytes: int) -> U8:
        whole = aligned(n_bytes + 2 * GUARD)
        whole.fill(0xFF)
        guards.append((whole, n_bytes))
        return whole[GUARD : GUARD + n_bytes]

    def empty(shape: tuple[int, ...], dtype: Any) -> Any:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return guarded(n_bytes).view(dtype).reshape(shape)

    names = types.SimpleNamespace(empty=empty, ascontiguousarray=np.ascontiguousarray, float32=np.float32)
    monkeypatch.setattr("sis_core.backends.native.runner.aligned", guarded)
    monkeypatch.setattr("sis_core.backends.native.runner.np", names)
    return guards


def before_a_wall(n_bytes: int) -> U8:
    """Bytes behind which no memory is: who reads on ends the process. Skips where that cannot be had."""
    if sys.platform == "win32":
        pytest.skip("this system has no mprotect")
    room = -(-n_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = np.frombuffer(mmap.mmap(-1, room + mmap.PAGESIZE), np.uint8)
    nothing = 0  # PROT_NONE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.ctypes.data + room), mmap.PAGESIZE, nothing) == 0
    return whole[room - n_bytes : room]

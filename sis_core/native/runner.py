"""One call into native code: raw addresses in, rows out. Everything is checked before."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from sis_core.arrays import F32, I32, U8, extremes
from sis_core.errors import BackendError
from sis_core.native import abi
from sis_core.native.library import Library, address
from sis_core.native.memory import aligned
from sis_core.native.program import Compiled, Rotations
from sis_core.step import Plan

NO_ROWS = np.zeros(1, np.int32)


class Runner:
    """Runs compiled programs; keeps workspaces between steps, one for each step that runs at a time."""

    def __init__(
        self,
        library: Library,
        rotations: Rotations,
        n_threads: int,
        cpus: Sequence[int] | None = None,
        *,
        invariant: bool = False,
    ) -> None:
        """``cpus``: one processor for each thread to keep to, or None to leave that to the system."""
        self.library, self.rotations, self.n_threads = library, rotations, n_threads
        self._cpus = None if cpus is None else np.array(cpus, np.int32)
        self.invariant = invariant
        self._idle: list[U8] = []
        self._lock = threading.Lock()

    def run(self, program: Compiled, hidden: F32, plan: Plan, outputs: I32 | None, records: Any, kv_type: str) -> F32:
        """``(n, n_embd)`` in; ``(k, n_out_cols)`` for ``outputs`` ``(k,)``, or all rows when it is None."""
        n = len(hidden)
        k = n if outputs is None else len(outputs)
        hidden = np.ascontiguousarray(hidden, np.float32)
        out = np.empty((k, program.n_out_cols), np.float32)
        rotations = self.rotations.tables(extremes(plan.positions)[1] + 1)
        groups = (abi.Group * max(len(plan.groups), 1))(
            *(abi.Group(address(g.rows), address(g.pages), len(g.rows), g.length) for g in plan.groups)
        )
        n_out = 0 if outputs is None else k
        step = abi.Step(
            n, n_out, len(plan.groups), plan.page_size, abi.KV_TYPES[kv_type], self.n_threads,
            abi.INVARIANT if self.invariant else 0, 0,
            address(hidden), address(out), address(plan.positions), address(plan.slots),
            address(NO_ROWS if outputs is None or not k else outputs), ctypes.addressof(groups),
            ctypes.addressof(records) if records is not None else None, rotations.address, None,
            None if self._cpus is None else address(self._cpus),
        )  # fmt: skip
        workspace = self._take(self.library.workspace(program.address, ctypes.addressof(step)))
        step.workspace = address(workspace)
        try:
            code = self.library.run(program.address, ctypes.addressof(step))
        finally:
            self._give_back(workspace)
        if code:
            raise BackendError(f"a kernel of a format plugin failed with code {code}", where="step")
        return out

    def _take(self, size: int) -> U8:
        with self._lock:
            for i, workspace in enumerate(self._idle):
                if len(workspace) >= size:
                    return self._idle.pop(i)
            self._idle.clear()  # too small: a larger one takes their place
        return aligned(size)

    def _give_back(self, workspace: U8) -> None:
        with self._lock:
            if len(self._idle) < 4:
                self._idle.append(workspace)

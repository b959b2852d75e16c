"""One call into native code: raw addresses in, rows out. Everything is checked before."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from sis_core.arrays import F32, I32, U8
from sis_core.backends.native import abi
from sis_core.backends.native.compiled import Compiled
from sis_core.backends.native.library import Library, address
from sis_core.backends.native.memory import aligned
from sis_core.backends.native.rotations import Rotations
from sis_core.backends.native.watched import Watched
from sis_core.errors import BackendError
from sis_core.step import Best, Plan

MAX_IDLE = 4
TABLE_BYTES, GROUP_BYTES, BEST_BYTES = map(ctypes.sizeof, (abi.Table, abi.Group, abi.Best))
NO_ROWS = np.empty((0, 0), np.float32)


class Runner:
    """Runs compiled programs; keeps what a step works with for the next, one for each step that runs at a time."""

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
        # Several threads take and give back: a list's pop and append are atomic. The first shows whether options fit.
        self._idle = [self._scratch()]

    def run(
        self,
        program: Compiled,
        plans: Sequence[Plan],
        *,
        tokens: I32 | None = None,
        hidden: F32 | None = None,
        outputs: I32 | None = None,
        kv: int | None = None,
        kv_type: str = "f32",
        alone: bool = False,
        best: list[Best] | None = None,
    ) -> F32:
        """``(n,)`` tokens or, without them, ``(n, n_embd)`` hidden states in; ``(k, n_out_cols)`` out.

        Args:
            plans: for each table that the program names.
            outputs: the rows to give out ``(k,)``; None for all.
            kv: the address of a `abi.KV` for each layer.
            alone: no row's result depends on how many rows there are; always so where the runner is ``invariant``.
            best: where to leave the best of each of ``outputs``; then no rows are given out.
        """
        seen = program.in_place.before_step()
        scratch = self._take()
        if tokens is not None:
            entry, n, tokens_at, hidden_at = program.address, len(tokens), address(tokens), 0
        else:
            assert hidden is not None
            hidden = np.ascontiguousarray(hidden, np.float32)
            entry, n, tokens_at, hidden_at = program.after_embedding, len(hidden), 0, address(hidden)
        n_out, outputs_at = (0, 0) if outputs is None else (len(outputs), address(outputs))
        if best is None:
            out, best_at = np.empty((n if outputs is None else n_out, program.n_out_cols), np.float32), 0
            out_at = address(out)
        else:
            out, out_at, best_at = NO_ROWS, *scratch.rows(n_out, program.n_out_cols)
        first = plans[0]
        watched = None if first.watch is None else Watched.of(program.watched, plans)  # the first keeps most
        rotations = self.rotations.tables(scratch.place(plans))
        filled = (
            n, n_out, len(first.groups), first.page_size, abi.KV_TYPES[kv_type], self.n_threads,
            abi.INVARIANT if alone or self.invariant else 0, 0, tokens_at, hidden_at, out_at,
            address(first.positions), outputs_at, scratch.tables_at, kv or 0, rotations.address,
            watched.address if watched else 0, best_at,
        )  # fmt: skip
        try:
            scratch.fill(filled)
            code = self.library.run(entry, scratch.address)
            if code == abi.NO_ROOM:
                scratch.grow(self.library.workspace(entry, scratch.address))
                scratch.fill(filled)
                code = self.library.run(entry, scratch.address)
            if best is not None:
                scratch.tell(n_out, best)
        finally:
            self._give_back(scratch)
        if seen is not None:
            program.in_place.after_step(seen)
        if code:
            raise BackendError(f"a kernel of a format plugin failed with code {code}", where="step")
        if watched:
            watched.tell()
        return out

    def make_room(self, program: Compiled, plans: Sequence[Plan]) -> U8:
        """Where a step of these plans will work if it is the first: memory that is not taken from the system yet."""
        scratch = self._take()
        scratch.place(plans)
        flags = abi.INVARIANT if self.invariant else 0
        n, n_groups, page_size = len(plans[0].positions), len(plans[0].groups), plans[0].page_size
        scratch.fill((n, 1, n_groups, page_size, 0, self.n_threads, flags, 0, *(0,) * 5, scratch.tables_at, *(0,) * 4))
        room = scratch.grow(self.library.workspace(program.address, scratch.address))
        self._give_back(scratch)
        return room

    def _take(self) -> _Scratch:
        try:
            return self._idle.pop()
        except IndexError:
            return self._scratch()

    def _scratch(self) -> _Scratch:
        return _Scratch(self.n_threads, self._cpus)

    def _give_back(self, scratch: _Scratch) -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(scratch)


class _Scratch:
    """The record of a step, and the memory that it works in."""

    def __init__(self, n_threads: int, cpus: I32 | None) -> None:
        self._cpus = 0 if cpus is None else address(cpus)
        self._step = abi.Step(n_threads=n_threads, cpus=self._cpus)  # refused here where options do not fit
        self.address = ctypes.addressof(self._step)
        self._workspace: U8 | None = None
        self._ends: tuple[int, int, int] = (0, 0, self._cpus)  # the last fields: of the workspace, and the processors
        self._tables = (abi.Table * 0)()
        self._groups: list[ctypes.Array[abi.Group]] = []
        self._room = -1
        self.tables_at = 0
        self._rows, self._best = np.empty(0, np.float32), (abi.Best * 0)()
        self._rows_at = self._best_at = 0

    def fill(self, values: tuple[int, ...]) -> None:
        """Write the record: its fields up to the workspace's."""
        abi.Step.fill(self._step, 0, *values, *self._ends)

    def place(self, plans: Sequence[Plan]) -> int:
        """Fill in tables and groups; the length of the longest sequence, 1 where there is none."""
        n = len(plans[0].groups)
        if n > self._room or len(plans) > len(self._groups):
            self._room = max(n, self._room)
            self._groups = [(abi.Group * self._room)() for _ in plans]
            self._tables = (abi.Table * len(plans))()
            self.tables_at = ctypes.addressof(self._tables)
        longest = 1
        for i, (records, plan) in enumerate(zip(self._groups, plans, strict=False)):
            abi.Table.fill(self._tables, i * TABLE_BYTES, address(plan.slots), ctypes.addressof(records))
            at = 0
            for first, n_rows, pages, length in plan.groups:
                abi.Group.fill(records, at, address(pages), first, n_rows, length, 0)
                at += GROUP_BYTES
                longest = max(longest, length)
        return longest

    def rows(self, n: int, n_cols: int) -> tuple[int, int]:
        """Where rows go that nobody sees but for the best of each, and where these go."""
        if n * n_cols > len(self._rows):
            self._rows = np.empty(n * n_cols, np.float32)
            self._rows_at = address(self._rows)
        if n > len(self._best):
            self._best = (abi.Best * n)()
            self._best_at = ctypes.addressof(self._best)
        return self._rows_at, self._best_at

    def tell(self, n: int, best: list[Best]) -> None:
        """Add what a step has found of so many rows."""
        best += [Best._make(abi.Best.read(self._best, at)) for at in range(0, n * BEST_BYTES, BEST_BYTES)]

    def grow(self, n_bytes: int) -> U8:
        """Take a larger workspace."""
        self._workspace = None  # gone before the next takes its memory
        self._workspace = aligned(n_bytes)
        self._ends = (address(self._workspace), n_bytes, self._cpus)
        return self._workspace

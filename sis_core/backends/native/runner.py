"""One call into native code: raw addresses in, rows out. Everything is checked before."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from struct import pack_into
from typing import Any

import numpy as np

from sis_core.arrays import F32, I32, U8
from sis_core.backends.native import abi
from sis_core.backends.native.compiled import Compiled
from sis_core.backends.native.library import Library, address
from sis_core.backends.native.memory import HUGE, Arena, aligned
from sis_core.backends.native.rotations import Rotations
from sis_core.backends.native.watched import Watched
from sis_core.errors import BackendError
from sis_core.step import Best, Group, Ints, MultiStepLimit, Plan

MAX_IDLE = 4
FEW, PATIENCE = 8, 8  # steps of an eighth of the rows, and how many of them before memory is given back
LARGE = 4 << 20  # bytes that are worth it
TABLE_BYTES, GROUP_BYTES = map(ctypes.sizeof, (abi.Table, abi.Group))
BEST_FIELDS = len(abi.Best._fields_)  # of 4 bytes each
INT = ctypes.sizeof(ctypes.c_int32)
NO_ROWS, NO_PAGES = np.empty((0, 0), np.float32), np.empty(0, np.int32)


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
        tokens: Ints | None = None,
        hidden: F32 | None = None,
        outputs: Ints | None = None,
        kv: int = 0,
        kv_type: str = "f32",
        alone: bool = False,
        best: list[Best] | None = None,
        multi_step: MultiStepLimit | None = None,
        patience: int = PATIENCE,
    ) -> F32:
        """``(n,)`` tokens or, without them, ``(n, n_embd)`` hidden states in; ``(k, n_out_cols)`` out.

        Args:
            plans: for each table that the program names.
            outputs: the rows to give out ``(k,)``; None for all.
            kv: the address of a `abi.KV` for each layer.
            alone: no row's result depends on how many rows there are; always so where the runner is ``invariant``.
            best: where to leave the best of each of ``outputs``; then no rows are given out.
            multi_step: go on from one row with its best; ``plans`` have room for ``multi_step.n`` rows after it.
            patience: steps of few rows that still work in a prompt's memory, before it is given back.
        """
        seen = program.in_place.before_step()
        scratch = self._take()
        if tokens is not None:
            entry, n, hidden_at = program.entry, len(tokens), 0
        else:
            assert hidden is not None
            hidden = np.ascontiguousarray(hidden, np.float32)
            entry, n, hidden_at = program.after_embedding, len(hidden), address(hidden)
        n_out, n_more, out = 0 if outputs is None else len(outputs), multi_step.n if multi_step else 0, NO_ROWS
        if best is None:
            out = np.empty((n if outputs is None else n_out, program.n_out_cols), np.float32)
            out_at, best_at = address(out), 0
        else:
            out_at, best_at = scratch.rows(n_out, program.n_out_cols, n_more)
        first = plans[0]
        watched = None if first.watch is None else Watched.of(program.watched, plans)  # the first keeps most
        longest = scratch.place(plans, () if tokens is None else tokens, () if outputs is None else outputs, n_more)
        rotations = self.rotations.tables(longest)
        filled = (
            n, n_out, len(first.groups), first.page_size, abi.KV_TYPES[kv_type], self.n_threads,
            abi.INVARIANT if alone or self.invariant else 0, 0, scratch.tokens_at, hidden_at, out_at,
            scratch.positions_at, scratch.outputs_at, scratch.tables_at, kv, rotations.address,
            watched.address if watched else 0, best_at,
        )  # fmt: skip
        try:
            scratch.fill(filled)
            code = abi.NO_ROOM
            if not scratch.too_large(n, patience):
                code = scratch.run(self.library, entry, multi_step, len(plans))
            if code == abi.NO_ROOM:
                scratch.resize(self.library.workspace(entry, scratch.step), n)
                scratch.fill(filled)
                code = scratch.run(self.library, entry, multi_step, len(plans))
            if best is not None:
                scratch.tell(scratch.n_run if multi_step else n_out, best)
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
        scratch.place(plans, (), (), 0)
        flags = abi.INVARIANT if self.invariant else 0
        n, n_groups, page_size = len(plans[0].places), len(plans[0].groups), plans[0].page_size
        scratch.fill((n, 1, n_groups, page_size, 0, self.n_threads, flags, 0, *(0,) * 5, scratch.tables_at, *(0,) * 4))
        room = scratch.resize(self.library.workspace(program.entry, scratch.step), n)
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
    """The record of a step, and the memory that it works in.

    Attributes:
        step: the record, as native code takes it.
        tokens_at, outputs_at, positions_at, tables_at: where a step that was placed has these.
        n_run: rows of the last of several steps at once.
    """

    def __init__(self, n_threads: int, cpus: I32 | None) -> None:
        self._cpus = 0 if cpus is None else address(cpus)
        self._step = abi.Step(n_threads=n_threads, cpus=self._cpus)  # refused here where options do not fit
        self.step = ctypes.byref(self._step)
        self._workspace: U8 | None = None
        self._n_most = self._n_small = 0  # rows that a large workspace was taken for, and steps of few since
        self._ends: tuple[int, int, int] = (0, 0, self._cpus)  # the last fields: of the workspace, and the processors
        self._ints, self._ints_at = (ctypes.c_int32 * 0)(), 0
        self._tables, self._groups = (abi.Table * 0)(), list[_Groups]()
        self.tokens_at = self.outputs_at = self.positions_at = self.tables_at = 0
        self._rows, self._best = np.empty(0, np.float32), (abi.Best * 0)()
        self._rows_at = self._best_at = 0
        self._best_ints, self._best_floats = memoryview(b"").cast("I"), memoryview(b"").cast("f")
        self._text_ends, self._ends_ints, self.n_run = frozenset[int](), (ctypes.c_int32 * 0)(), 0

    def fill(self, values: tuple[int, ...]) -> None:
        """Write the record: its fields up to the workspace's."""
        abi.Step.fill(self._step, 0, *values, *self._ends)

    def place(self, plans: Sequence[Plan], tokens: Ints, outputs: Ints, n_more: int) -> int:
        """Lay out what a step reads, and ``n_more`` rows that may follow; the length of the longest sequence then, 1
        where there is none."""
        ints = [*tokens, *outputs]
        n_given = len(ints)
        ints.extend(plans[0].places)
        n_before = len(ints)
        for plan in plans:
            ints.extend(plan.rows)
        at = self._put(ints)
        self.tokens_at, self.outputs_at, self.positions_at = at, at + INT * len(tokens), at + INT * n_given
        if len(plans) > len(self._groups):
            self._groups = [_Groups() for _ in plans]
            self._tables = (abi.Table * len(plans))()
            self.tables_at = ctypes.addressof(self._tables)
        longest, slots_at = 1, at + INT * n_before
        for table, plan in enumerate(plans):
            groups = self._groups[table]
            if (length := groups.place(plan.groups, n_more)) > longest:
                longest = length
            abi.Table.fill(self._tables, table * TABLE_BYTES, slots_at, groups.address)
            slots_at += INT * len(plan.rows)
        return longest

    def _put(self, ints: Sequence[int]) -> int:
        """Write integers down; their address."""
        if (n := len(ints)) > len(self._ints):
            self._ints = (ctypes.c_int32 * (2 * n))()
            self._ints_at = ctypes.addressof(self._ints)
        pack_into(f"{n}i", self._ints, 0, *ints)
        return self._ints_at

    def run(self, library: Library, entry: Any, multi_step: MultiStepLimit | None, n_tables: int) -> int:
        """Run the step, and others after it; see `abi.PROTOTYPES`."""
        if multi_step is None:
            code: int = library.run(entry, self.step)
            return code
        if multi_step.ends is not self._text_ends:
            self._text_ends = multi_step.ends
            self._ends_ints = (ctypes.c_int32 * len(multi_step.ends))(*multi_step.ends)
        record = abi.MultiStepState(
            1 + multi_step.n, n_tables, len(multi_step.ends), 0, ctypes.addressof(self._ends_ints)
        )
        code = library.multi_step(entry, self.step, ctypes.byref(record))
        self.n_run = record.n_run
        return code

    def rows(self, n: int, n_cols: int, n_more: int) -> tuple[int, int]:
        """Where rows go that nobody sees but for the best of each, and where these and so many more go."""
        if n * n_cols > len(self._rows):
            self._rows = np.empty(n * n_cols, np.float32)
            self._rows_at = address(self._rows)
        if (n := n + n_more) > len(self._best):
            self._best = (abi.Best * n)()
            self._best_at = ctypes.addressof(self._best)
            fields = memoryview(self._best).cast("B")
            self._best_ints, self._best_floats = fields.cast("I"), fields.cast("f")
        return self._rows_at, self._best_at

    def tell(self, n: int, best: list[Best]) -> None:
        """Add what a step has found of so many rows."""
        ints, floats = self._best_ints, self._best_floats
        best += [Best(ints[at], floats[at + 1], floats[at + 2]) for at in range(0, n * BEST_FIELDS, BEST_FIELDS)]

    def too_large(self, n: int, patience: int) -> bool:
        """Whether steps of as few rows as this one, ``n``, have followed one of many for a while: the prompt is over,
        and what it worked in is as much as many layers of a small model."""
        self._n_small = self._n_small + 1 if n * FEW <= self._n_most else 0
        return self._n_small > patience

    def resize(self, n_bytes: int, n: int) -> U8:
        """Take another workspace, for steps of ``n`` rows; its memory is taken from the system when it is written."""
        self._workspace = None  # gone before the next takes its memory
        self._workspace = Arena(n_bytes).array if n_bytes >= HUGE else aligned(n_bytes)
        self._ends = (address(self._workspace), n_bytes, self._cpus)
        self._n_most, self._n_small = n if n_bytes >= LARGE else 0, 0
        return self._workspace


class _Groups:
    """The groups of one table: a record for each, and where its pages lie, which few steps change."""

    def __init__(self) -> None:
        self._records, self.address = (abi.Group * 0)(), 0
        self._pages: list[tuple[I32, int]] = []

    def place(self, groups: Sequence[Group], n_more: int) -> int:
        """Write the records, of which ``n_more`` rows come later; the length of the longest sequence with them, 0 where
        there is none."""
        if len(groups) > len(self._pages):
            self._pages += [(NO_PAGES, 0)] * (len(groups) - len(self._pages))
            self._records = (abi.Group * len(groups))()
            self.address = ctypes.addressof(self._records)
        longest = 0
        for i, (first, n, pages, length) in enumerate(groups):
            known, at = self._pages[i]
            if known is not pages:
                at = address(pages)
                self._pages[i] = pages, at
            abi.Group.fill(self._records, i * GROUP_BYTES, at, first, n - n_more, length - n_more, 0)
            if length > longest:
                longest = length
        return longest

"""Which registers and rooms hold something at the same time: the others share memory.

Live ranges are found backwards over the ops, as compilers find them (Aho, Lam, Sethi and Ullman 2006, "Compilers",
9.2.5), by columns: a register is often written in parts. Members of a team are anywhere within a phase, so all that a
phase touches is in use throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sis_core.arrays import U8
from sis_core.backends.native import abi
from sis_core.backends.native.passing import EVERYTHING, Span, Touched

NO_ROWS = frozenset({abi.LINEAR, abi.ATTEND, abi.EXPERTS})  # ops that are no row operations
BREAKS = NO_ROWS | {abi.GATHER}  # what ends a phase of these
WITH_ROOMS = NO_ROWS | {abi.PREPARE, abi.PREPARE_FOREIGN, abi.ROUTE, abi.COMBINE}

Live = dict[int, list[tuple[int, int]]]  # columns that are read later, of each thing


def conflicts(ops: Sequence[abi.Op], touched: Sequence[Touched], n_registers: int) -> U8:
    """``(n, n)`` of registers and rooms: 1 for two that are in use at the same time, where `passing.mark` has been."""
    n = n_registers + abi.N_ROOMS
    found = np.zeros((n, n), np.uint8)
    live: Live = {}
    known: set[frozenset[int]] = set()
    for first, stop in reversed([*phases(ops)]):
        used = set(live)
        for i in reversed(range(first, stop)):
            op, defined, read = ops[i], [*touched[i].written], [*touched[i].read]
            if op.kind in WITH_ROOMS:
                _rooms(op, n_registers, defined, read, used)
            for span in defined:
                used.add(span.register)
                if span.register in live:
                    _kill(live, span)
            for span in read:
                used.add(span.register)
                _use(live, span)
        used.discard(abi.OUT)
        if (together := frozenset(used)) not in known:  # layers are alike
            known.add(together)
            several = sorted(together)
            found[np.ix_(several, several)] = 1
    return found


def phases(ops: Sequence[abi.Op]) -> Iterator[tuple[int, int]]:
    """Where each phase begins and ends, with what native code makes one phase of in some steps."""
    kinds, first = [op.kind for op in ops], 0
    while first < len(ops):
        stop, kind = _end(kinds, first), kinds[first]
        if stop < len(ops) and (kind == abi.EXPERTS or (kind == abi.LINEAR and ops[first].flags & abi.PASSES)):
            stop = _end(kinds, stop)
        yield first, stop
        first = stop


def _end(kinds: Sequence[int], first: int) -> int:
    """As `end_of_phase` in `native/phases.c`: a test compares them."""
    kind, stop = kinds[first], first + 1
    if kind == abi.LINEAR:
        while stop < len(kinds) and kinds[stop] == kind:
            stop += 1
    elif kind not in NO_ROWS:
        while stop < len(kinds) and kinds[stop] not in BREAKS:
            stop += 1
    return stop


def _rooms(op: abi.Op, first_room: int, defined: list[Span], read: list[Span], used: set[int]) -> None:
    """Add what an op writes and reads beside its registers, and what it uses only while it is at work."""
    kind = op.kind
    if kind == abi.PREPARE:
        defined.append(Span(first_room + op.count, 0, 1))
    elif kind == abi.PREPARE_FOREIGN:
        defined.append(Span(first_room + abi.ROOM_FOREIGN, op.count, op.count + 1))
    elif kind == abi.LINEAR:
        weight = abi.Weight.from_address(op.weight)
        if weight.format != abi.FOREIGN:
            read.append(Span(first_room + op.count, 0, 1))
        elif abi.LinearObject.from_address(weight.linear).prepare:
            read.append(Span(first_room + abi.ROOM_FOREIGN, op.count, op.count + 1))
    elif kind == abi.ATTEND:
        used.add(first_room + abi.ROOM_PARTS)
    else:
        record = abi.Experts.from_address(op.experts)
        (defined if kind == abi.ROUTE else read).extend(
            (Span(record.chosen, 0, EVERYTHING), Span(first_room + abi.ROOM_EXPERTS, 0, 1))
        )
        if kind == abi.EXPERTS:
            used.add(record.up_values)


def _kill(live: Live, span: Span) -> None:
    """Take what is written away from what is read later."""
    register, first, stop = span
    parts = [part for low, high in live[register] for part in ((low, min(high, first)), (max(low, stop), high))]
    if left := [part for part in parts if part[0] < part[1]]:
        live[register] = left
    else:
        del live[register]


def _use(live: Live, span: Span) -> None:
    """Add what is read."""
    register, first, stop = span
    if register == abi.OUT:
        return
    if register in live:
        _kill(live, span)  # so that columns are named once
    live.setdefault(register, []).append((first, stop))

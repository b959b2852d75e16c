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
from sis_core.backends.native.passing import EVERYTHING, Span, reads, writes

FOREIGN, EXPERTS, PARTS, N_ROOMS = range(abi.PLACES, abi.PLACES + 4)  # after the places; `enum sis_room`
NO_ROWS = frozenset({abi.LINEAR, abi.ATTEND, abi.EXPERTS})  # ops that are no row operations

Live = dict[int, list[tuple[int, int]]]  # columns that are read later, of each thing


def conflicts(ops: Sequence[abi.Op], n_registers: int) -> U8:
    """``(n, n)`` of registers and rooms: 1 for two that are in use at the same time, where `passing.mark` has been."""
    n = n_registers + N_ROOMS
    found = np.zeros((n, n), np.uint8)
    live: Live = {}
    known: set[frozenset[int]] = set()
    for first, stop in reversed([*phases(ops)]):
        used = set(live)
        for op in reversed(ops[first:stop]):
            defined, read, passing = _touched(op, n_registers)
            used.update([span.register for span in (*defined, *read)], [passing])
            for span in defined:
                _kill(live, span)
            for span in read:
                _use(live, span)
        used.discard(abi.OUT)
        used.discard(-1)
        if (together := frozenset(used)) not in known:  # layers are alike
            known.add(together)
            several = sorted(together)
            found[np.ix_(several, several)] = 1
    return found


def phases(ops: Sequence[abi.Op]) -> Iterator[tuple[int, int]]:
    """Where each phase begins and ends, with what native code makes one phase of in some steps."""
    first = 0
    while first < len(ops):
        stop = _end(ops, first)
        joined = ops[first].kind == abi.EXPERTS or ops[first].flags & abi.PASSES
        if ops[first].kind in NO_ROWS and joined and stop < len(ops):
            stop = _end(ops, stop)
        yield first, stop
        first = stop


def _end(ops: Sequence[abi.Op], first: int) -> int:
    """As `end_of_phase` in `native/run.c`."""
    kind, stop = ops[first].kind, first + 1
    if kind in NO_ROWS and kind != abi.LINEAR:
        return stop
    while stop < len(ops) and (
        ops[stop].kind == kind if kind == abi.LINEAR else ops[stop].kind not in NO_ROWS | {abi.GATHER}
    ):
        stop += 1
    return stop


def _touched(op: abi.Op, first_room: int) -> tuple[list[Span], list[Span], int]:
    """What an op writes whole, what it reads, and what it uses only while it is at work, or -1."""
    defined, read, passing = [*writes(op)], [*reads(op)], -1
    kind = op.kind
    if kind == abi.PREPARE:
        defined.append(Span(first_room + op.count, 0, 1))
    elif kind == abi.PREPARE_FOREIGN:
        defined.append(Span(first_room + FOREIGN, op.count, op.count + 1))
    elif kind == abi.LINEAR:
        weight = abi.Weight.from_address(op.weight)
        if weight.format != abi.FOREIGN:
            read.append(Span(first_room + op.count, 0, 1))
        elif abi.LinearObject.from_address(weight.linear).prepare:
            read.append(Span(first_room + FOREIGN, op.count, op.count + 1))
    elif kind == abi.ATTEND:
        passing = first_room + PARTS
    elif kind in (abi.ROUTE, abi.EXPERTS, abi.COMBINE):
        record = abi.Experts.from_address(op.experts)
        of_experts = [Span(record.chosen, 0, EVERYTHING), Span(first_room + EXPERTS, 0, 1)]
        if kind == abi.ROUTE:
            defined += of_experts
        else:
            read += of_experts
        if kind == abi.EXPERTS:
            passing = record.up_values
    return defined, read, passing


def _kill(live: Live, span: Span) -> None:
    """Take what is written away from what is read later."""
    columns = live.get(span.register)
    if columns is None:
        return
    _, first, stop = span
    parts = (part for low, high in columns for part in ((low, min(high, first)), (max(low, stop), high)))
    left = [part for part in parts if part[0] < part[1]]
    if left:
        live[span.register] = left
    else:
        del live[span.register]


def _use(live: Live, span: Span) -> None:
    """Add what is read."""
    if span.register == abi.OUT:
        return
    _kill(live, span)  # so that columns are named once
    live.setdefault(span.register, []).append((span.first, span.stop))
